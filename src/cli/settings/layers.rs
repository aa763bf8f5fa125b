//! Flags, environment and file, one above the other: the first of them that gives a value counts,
//! else the default.

use crate::cli::settings::file::File;
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::setting::{ENV_PREFIX, Setting, Source, Texts};
use crate::domain::nearest::nearest;
use crate::domain::usage::UsageError;
use crate::store::dsn::Env;

/// One setting as it is effective; its value holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The name of the option.
    pub name: String,
    /// The value, as the option would take it.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// A value as a layer gives it.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Given {
    pub(in crate::cli) text: String,
    pub(in crate::cli) source: Source,
}

/// The three places where a value may stand, and the errors and warnings from reading them.
#[derive(Debug, Default)]
pub(in crate::cli) struct Layers {
    flags: Texts,
    env: Texts,
    pub(in crate::cli) file: Option<File>,
    pub(in crate::cli) effective: Vec<Effective>,
    pub(in crate::cli) warnings: Vec<String>,
}

impl Layers {
    /// Collects what was given, and reads the configuration file if one is named.
    pub(in crate::cli) fn gather(flags: Texts, env: &Env) -> Result<Layers, UsageError> {
        let mut layers = Layers {
            flags,
            ..Layers::default()
        };
        layers.read_environment(env);
        if let Some(Given { text: path, source }) = layers.given(&SETTINGS.config) {
            layers.show(&SETTINGS.config, path.clone(), source);
            layers.file = Some(File::read(&path)?);
        }
        Ok(layers)
    }

    /// An empty variable counts as not set: unit files and compose files take a variable back in
    /// this way. An unknown variable gets only a warning, since other programs may use the prefix,
    /// too.
    fn read_environment(&mut self, env: &Env) {
        for (variable, value) in env.range(ENV_PREFIX.to_owned()..) {
            if !variable.starts_with(ENV_PREFIX) {
                break;
            }
            let mut names = SETTINGS.names_in(Source::Environment);
            match names.find(|name| name.variable() == *variable) {
                Some(name) if !value.is_empty() => {
                    self.env.insert(name, value.clone());
                }
                Some(_) => {}
                None if is_kubernetes_link(variable) => {}
                None => self.warnings.push(unknown_variable(variable)),
            }
        }
    }

    /// Finds a value in the layer that counts most.
    pub(in crate::cli) fn given<T>(&self, setting: &Setting<T>) -> Option<Given> {
        [Source::Flag, Source::Environment, Source::File]
            .into_iter()
            .find_map(|source| {
                Some(Given {
                    text: self.given_by(setting, source)?.to_owned(),
                    source,
                })
            })
    }

    /// Takes a value from one place only.
    pub(in crate::cli) fn given_by<T>(&self, setting: &Setting<T>, source: Source) -> Option<&str> {
        let values = match source {
            Source::Flag => Some(&self.flags),
            Source::Environment => Some(&self.env),
            Source::File => self.file.as_ref().map(|file| &file.values),
            Source::Program | Source::Default => None,
        };
        values?.get(&setting.name).map(String::as_str)
    }

    /// Names a setting as its source does.
    pub(in crate::cli) fn named<T>(&self, setting: &Setting<T>, source: Source) -> String {
        let name = setting.name;
        match (source, &self.file) {
            (Source::Environment, _) => name.variable(),
            (Source::File, Some(file)) => format!("`{}` in `{}`", name.key, file.path),
            _ => format!("--{}", name.option()),
        }
    }

    /// Makes the error that a setting cannot be what it is, and blames its source.
    pub(in crate::cli) fn refuse<T>(&self, setting: &Setting<T>, refusal: &str) -> UsageError {
        let given = self.given(setting);
        let source = given.map_or(Source::Default, |given| given.source);
        source.blame(format!("{} {refusal}", self.named(setting, source)))
    }

    /// Notes the effective value of a setting.
    pub(in crate::cli) fn show<T>(&mut self, setting: &Setting<T>, value: String, source: Source) {
        self.effective.push(Effective {
            name: setting.name.option(),
            value,
            source,
        });
    }

    /// Reads one setting.
    pub(in crate::cli) fn read<T: Clone>(&mut self, setting: &Setting<T>) -> Result<T, UsageError> {
        self.read_or(setting, setting.default.clone())
    }

    /// Reads one setting whose default follows from another one.
    pub(in crate::cli) fn read_or<T>(
        &mut self,
        setting: &Setting<T>,
        default: T,
    ) -> Result<T, UsageError> {
        let (value, source) = match self.given(setting) {
            None => (default, Source::Default),
            Some(given) => match (setting.read)(&given.text) {
                Ok(value) => (value, given.source),
                Err(refusal) => return Err(self.refuse(setting, &refusal)),
            },
        };
        self.show(setting, (setting.show)(&value), source);
        Ok(value)
    }
}

/// Compares the part behind the prefix: with the prefix, all variables would be alike.
fn unknown_variable(variable: &str) -> String {
    let word = variable.strip_prefix(ENV_PREFIX).unwrap_or(variable);
    if word == "ROUTE" {
        return format!(
            "the variable {variable} has no effect: give routes by --route or in the file"
        );
    }
    let known = SETTINGS.names_in(Source::Environment);
    let known: Vec<String> = known.map(|name| name.key.to_ascii_uppercase()).collect();
    let words = known.iter().map(String::as_str);
    let meant = nearest(word, words).map_or_else(String::new, |word| {
        format!("; did you mean `{ENV_PREFIX}{word}`?")
    });
    format!("the variable {variable} is not a setting of this version{meant}")
}

/// Kubernetes sets such variables in every container when a service is called `dispatchbox`.
fn is_kubernetes_link(variable: &str) -> bool {
    let rest = variable.strip_prefix(ENV_PREFIX).unwrap_or(variable);
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}
