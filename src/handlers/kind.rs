//! What a kind of handler is: its name, its keys, how its settings are read, built and shown.
//!
//! A kind is a module: the struct of its settings, which implements [`Kind`] and [`Settings`], and
//! what delivers, which implements [`Deliver`]. A key of a new type needs a reader in `keys`. Its
//! line in [`KINDS`] makes it known to the command line, the file, the help and the workers.
//! Settings travel to the workers as JSON, which only the kind itself reads.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::config::HandlerSpec;
use crate::domain::event::Event;
use crate::domain::nearest::did_you_mean;
use crate::handlers::keys::{Key, Keys};
use crate::handlers::transport::Roots;
use crate::handlers::{HandlerError, KINDS, Run};

/// A kind of handler, implemented by the settings of one.
pub(super) trait Kind: Settings + Serialize + DeserializeOwned + 'static {
    /// The name that `handler = "…"` has in the file.
    const NAME: &'static str;

    /// What it does, in one line of the help.
    const SUMMARY: &'static str;

    /// How `--route PATTERN=…` names it. A word before a colon is the scheme that only it has.
    const FORMS: &'static [&'static str];

    /// Its own keys in a `[[route]]` table.
    const KEYS: &'static [Key];

    /// Reads what stands behind `PATTERN=`; `None` where the text is not of this kind.
    fn from_flag(text: &str) -> Option<Result<Self, String>>;

    /// Reads its keys of a table; a refusal follows the name of the route.
    fn from_table(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<Self, String>;

    /// Warns once, however many routes are of this kind, of a variable in the environment.
    fn warning_of(_environment: &Environment) -> Option<String> {
        None
    }
}

/// The settings of one handler.
pub(crate) trait Settings {
    /// Makes ready what delivers, and refuses what can never work.
    fn build(&self, build: Build<'_>) -> Result<Box<dyn Deliver>, String>;

    /// Shows where events go, as `config check` does: nothing secret stands in it.
    fn shown(&self) -> String;

    /// Shows the settings that are not the usual ones, each as `key value`.
    fn unusual(&self) -> Option<String> {
        None
    }

    /// Warns of what is allowed and yet can hardly be meant.
    fn warning(&self) -> Option<String> {
        None
    }
}

/// Delivers one event. Called from several threads at once.
pub(crate) trait Deliver: Send + Sync {
    /// Delivers `event`. A handler of a library user may panic in here.
    fn deliver(&self, event: &Event, run: &Run<'_>) -> Result<(), HandlerError>;

    /// Says whether this is a handler of a library user: it does not keep the timeout by itself, so
    /// the watchdog watches it.
    fn is_library(&self) -> bool {
        false
    }
}

/// What a handler is built with: the limits of its route, and what all routes share.
pub(crate) struct Build<'a> {
    /// Bound of one run.
    pub(super) timeout: Duration,
    /// Most runs at once.
    pub(super) runners: NonZeroU16,
    /// The name of the database.
    pub(super) database: &'a str,
    /// The certificates that receivers are checked against.
    pub(super) roots: &'a mut Roots,
}

/// The variables of the environment.
pub(crate) type Environment = BTreeMap<String, String>;

/// How to treat settings that a table does not hold itself: it names the file or the variable.
#[derive(Clone, Copy)]
pub(crate) enum Secrets<'a> {
    /// Read them; variables are those of this environment.
    Read(&'a Environment),
    /// Leave them unread: only the pattern of the route matters.
    Unread,
}

/// A line of the table of kinds.
pub(crate) struct KindEntry {
    /// See [`Kind::NAME`].
    pub(crate) name: &'static str,
    /// See [`Kind::SUMMARY`].
    pub(crate) summary: &'static str,
    /// See [`Kind::FORMS`].
    pub(crate) forms: &'static [&'static str],
    /// See [`Kind::KEYS`].
    pub(crate) keys: &'static [Key],
    /// See [`Kind::warning_of`].
    pub(crate) warning_of: fn(&Environment) -> Option<String>,
    from_flag: fn(&str) -> Option<Result<Value, String>>,
    from_table: fn(Keys<'_>, Secrets<'_>) -> Result<Value, String>,
    settings: fn(&Value) -> Option<Box<dyn Settings>>,
}

impl KindEntry {
    /// The line of the kind whose settings are a `K`.
    pub(super) const fn of<K: Kind>() -> KindEntry {
        KindEntry {
            name: K::NAME,
            summary: K::SUMMARY,
            forms: K::FORMS,
            keys: K::KEYS,
            warning_of: K::warning_of,
            from_flag: |text| K::from_flag(text).map(|settings| Ok(json(&settings?))),
            from_table: |keys, secrets| Ok(json(&K::from_table(keys, secrets)?)),
            settings: |json| Some(Box::new(serde_json::from_value::<K>(json.clone()).ok()?)),
        }
    }
}

fn json(settings: &impl Serialize) -> Value {
    serde_json::to_value(settings).expect("the keys of settings are texts")
}

/// Finds a kind by its name.
pub(crate) fn find(name: &str) -> Option<&'static KindEntry> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The keys of all kinds, each once. Those of the last kind come first: refusals list them in this
/// order.
pub(crate) fn keys() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for key in KINDS.iter().rev().flat_map(|kind| kind.keys) {
        if !names.contains(&key.name) {
            names.push(key.name);
        }
    }
    names
}

/// Reads the settings of a handler of a kind in the table; `None` where it is of no such kind.
pub(super) fn settings(spec: &HandlerSpec) -> Option<Result<Box<dyn Settings>, String>> {
    let kind = find(&spec.kind)?;
    // The reason could repeat a setting, and with it a secret.
    Some((kind.settings)(&spec.settings).ok_or_else(|| {
        format!(
            "the settings of the handler `{}` are not those of this version",
            kind.name
        )
    }))
}

/// Reads the command line's form of a handler, such as `https://crm.example/hooks`, `log`,
/// `exec:/usr/bin/send-mail --fast` or the name of a registered handler.
pub(crate) fn from_flag(text: &str) -> Result<HandlerSpec, String> {
    let read = |kind: &KindEntry| Some((kind.name, (kind.from_flag)(text)?));
    if let Some((name, settings)) = KINDS.iter().find_map(read) {
        return Ok(HandlerSpec {
            kind: name.to_owned(),
            settings: settings?,
        });
    }
    if is_name(text) && find(text).is_none() {
        return Ok(HandlerSpec::named(text));
    }
    let forms = || KINDS.iter().flat_map(|kind| kind.forms).copied();
    // Only what stands before the colon is compared: the rest may be a secret.
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let schemes = forms().filter_map(|form| Some(form.split_once(':')?.0));
    let shown: Vec<String> = forms().map(|form| format!("`{form}`")).collect();
    Err(format!(
        "the handler must be {} or the name of a registered handler, as in `order.*=https://crm.example/hooks`{}",
        shown.join(", "),
        did_you_mean(scheme, schemes)
    ))
}

/// Reads the keys that belong to the handler `name` in a `[[route]]` table. `is_registered` says
/// whether the program has registered a handler under this name.
pub(crate) fn from_table(
    name: &str,
    keys: Keys<'_>,
    secrets: Secrets<'_>,
    is_registered: bool,
) -> Result<HandlerSpec, String> {
    let kind = find(name);
    let settings = kind.map_or(Ok(Value::Null), |kind| (kind.from_table)(keys, secrets))?;
    // Whether an unknown handler takes a key is not known: that there is no such handler is
    // reported when the route is built.
    if kind.is_some() || is_registered {
        check_keys_fit(name, kind.map_or(&[], |kind| kind.keys), keys)?;
    }
    Ok(HandlerSpec {
        kind: name.to_owned(),
        settings,
    })
}

/// Refuses a key of another kind of handler: it is a mistake, since the receiver that it names
/// would get no event.
fn check_keys_fit(name: &str, own: &[Key], given: Keys<'_>) -> Result<(), String> {
    let is_own = |key: &str| own.iter().any(|own| own.name == key);
    match keys()
        .into_iter()
        .find(|key| given.get(key).is_some() && !is_own(key))
    {
        Some(key) => Err(format!(
            "has `{key}`, which the handler `{name}` does not take"
        )),
        None => Ok(()),
    }
}

/// Names stand on the command line and in the file without quotation.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own_and_reads_its_forms() {
        for kind in KINDS {
            let namesakes = KINDS.iter().filter(|other| other.name == kind.name);
            assert!(
                is_name(kind.name) && namesakes.count() == 1,
                "{}",
                kind.name
            );
            for form in kind.forms {
                let spec = from_flag(form).expect("a form of the help is read");
                assert_eq!(spec.kind, kind.name, "{form}");
            }
        }
    }
}
