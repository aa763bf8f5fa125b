//! The DSN for `run`, `migrate` and the other commands that need a database. The places, in this
//! order: `--dsn`, `--dsn-file`, `DISPATCHBOX_DSN`, `DISPATCHBOX_DSN_FILE`, the file's `dsn` or
//! `dsn_file`, `DATABASE_URL`, libpq's `PG*` variables.

use crate::cli::settings::file;
use crate::cli::settings::layers::Layers;
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::setting::Source;
use crate::domain::usage::UsageError;
use crate::store::dsn::{self, Dsn, Env, Place};

/// Variables of libpq that say where a database is; others, such as a password, only complete what
/// something else says.
const LIBPQ_PLACES: [&str; 6] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGSERVICE",
];

/// Resolves the DSN from the first place that has one, and shows it without its secrets.
pub(in crate::cli) fn resolve(layers: &mut Layers, env: &Env) -> Result<Dsn, UsageError> {
    resolve_optional(layers, env)?.ok_or_else(|| {
        UsageError::new("no database is named: give --dsn").hint(
            "or --dsn-file, DISPATCHBOX_DSN, DATABASE_URL, or PGHOST, PGDATABASE and the like",
        )
    })
}

/// Finds the DSN for a command that can work without one: `None` when no place has one.
pub(in crate::cli) fn resolve_optional(
    layers: &mut Layers,
    env: &Env,
) -> Result<Option<Dsn>, UsageError> {
    let Some(found) = find(layers, env)? else {
        return Ok(None);
    };
    let Found {
        name, source, text, ..
    } = &found;
    let source = *source;
    warn_of_two(layers, source);
    let mut warnings = Vec::new();
    // A line end at the end of the text comes from a file or an `echo`; libpq would take it for a
    // part of a URL's database.
    let text = text.as_deref().map(str::trim);
    // libpq takes an empty DSN as "everything by default"; here it is a variable that a script
    // forgot to set.
    if text.is_some_and(str::is_empty) {
        return Err(source.blame(format!("{name} is empty")));
    }
    let dsn = Dsn::resolve(text, env, &mut warnings)
        .map_err(|error| source.blame(format!("could not use {name}: {error}")))?
        .with_source(dsn::Source::new(name.clone(), found.place.clone(), env));
    layers.warnings.append(&mut warnings);
    if source == Source::Flag && name == "--dsn" && text.is_some_and(Dsn::password_in_text) {
        layers.warnings.push(
            "--dsn holds a password, which every user of this host can read in the process list: use --dsn-file, \
             DISPATCHBOX_DSN or a passfile"
                .to_owned(),
        );
    }
    layers.show(&SETTINGS.dsn, dsn.display(), source);
    Ok(Some(dsn))
}

/// Warns that two options of equal rank give a DSN, and says which one counts: the other one may be
/// meant.
fn warn_of_two(layers: &mut Layers, source: Source) {
    let [dsn, file] = [&SETTINGS.dsn, &SETTINGS.dsn_file];
    let is_given = |name| layers.given_by(name, source).is_some();
    if is_given(dsn) && is_given(file) {
        let [dsn, file] = [dsn, file].map(|name| layers.named(name, source));
        layers
            .warnings
            .push(format!("{file} has no effect: {dsn} counts"));
    }
}

/// The place that names the database, and its text; no text for libpq's variables, which need none.
struct Found {
    name: String,
    source: Source,
    text: Option<String>,
    /// Where the DSN is read again.
    place: Place,
}

impl Found {
    fn text(name: String, source: Source, text: &str) -> Found {
        Found {
            name,
            source,
            text: Some(text.to_owned()),
            place: Place::Text(text.to_owned()),
        }
    }
}

fn find(layers: &Layers, env: &Env) -> Result<Option<Found>, UsageError> {
    for source in [Source::Flag, Source::Environment, Source::File] {
        if let Some(text) = layers.given_by(&SETTINGS.dsn, source) {
            let name = layers.named(&SETTINGS.dsn, source);
            return Ok(Some(Found::text(name, source, text)));
        }
        if let Some(path) = layers.given_by(&SETTINGS.dsn_file, source) {
            let name = format!("{} `{path}`", layers.named(&SETTINGS.dsn_file, source));
            let text = file::read_text(path)
                .map_err(|error| source.blame(format!("could not read {name}: {error}")))?;
            return Ok(Some(Found {
                name,
                source,
                text: Some(text),
                place: Place::File(path.into()),
            }));
        }
    }
    let set = |name: &&str| env.get(*name).is_some_and(|value| !value.is_empty());
    if let Some(url) = env.get("DATABASE_URL").filter(|url| !url.is_empty()) {
        let name = "DATABASE_URL".to_owned();
        return Ok(Some(Found::text(name, Source::Environment, url)));
    }
    Ok(LIBPQ_PLACES.iter().any(set).then(|| Found {
        name: "the PG* variables".to_owned(),
        source: Source::Environment,
        text: None,
        place: Place::Nowhere,
    }))
}
