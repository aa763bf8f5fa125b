//! Flags, environment and file, one above the other: the first of them that gives a value counts,
//! else the default.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::settings::file::File;
use crate::cli::settings::names::{ENV_PREFIX, SETTINGS, key_of, variable_of};
use crate::cli::settings::values;
use crate::domain::config::{self, LogLevel};
use crate::domain::nearest::nearest;
use crate::domain::usage::UsageError;
use crate::store::dsn::Env;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The configuration file.
    File,
    /// Code of the program itself: its own routes, which stand before all others.
    Program,
    /// The built-in default: no layer gives a value.
    Default,
}

impl Source {
    /// Makes the error that blames this source.
    pub(in crate::cli) fn blame(self, text: String) -> UsageError {
        match self {
            Source::Flag | Source::Environment | Source::Program | Source::Default => {
                UsageError::new(text)
            }
            Source::File => UsageError::in_file(text),
        }
    }

    /// The word for the source.
    pub fn name(self) -> &'static str {
        match self {
            Source::Flag => "flag",
            Source::Environment => "environment",
            Source::File => "file",
            Source::Program => "program",
            Source::Default => "default",
        }
    }
}

/// One setting as it is effective; its value holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The name of the option.
    pub name: &'static str,
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
#[derive(Debug)]
pub(in crate::cli) struct Layers {
    flags: BTreeMap<&'static str, String>,
    env: BTreeMap<&'static str, String>,
    pub(in crate::cli) file: Option<File>,
    file_path: String,
    pub(in crate::cli) effective: Vec<Effective>,
    pub(in crate::cli) warnings: Vec<String>,
}

impl Layers {
    /// Collects what was given, and reads the configuration file if one is named.
    pub(in crate::cli) fn gather(
        flags: Vec<(&'static str, String)>,
        env: &Env,
    ) -> Result<Layers, UsageError> {
        let mut layers = Layers {
            flags: flags.into_iter().collect(),
            env: BTreeMap::new(),
            file: None,
            file_path: String::new(),
            effective: Vec::new(),
            warnings: Vec::new(),
        };
        layers.read_environment(env);
        if let Some(Given { text: path, source }) = layers.given("config") {
            layers.show("config", path.clone(), source);
            layers.file = Some(File::read(&path)?);
            layers.file_path = path;
        }
        Ok(layers)
    }

    /// An empty variable counts as not set: unit files and compose files take a variable back in
    /// this way. An unknown variable gets only a warning, since other programs may use the prefix,
    /// too.
    fn read_environment(&mut self, env: &Env) {
        let names: Vec<String> = SETTINGS.iter().map(|name| variable_of(name)).collect();
        for (variable, value) in env.range(ENV_PREFIX.to_owned()..) {
            if !variable.starts_with(ENV_PREFIX) {
                break;
            }
            let known = names.iter().position(|name| name == variable);
            match known.and_then(|at| SETTINGS.get(at)) {
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
    pub(in crate::cli) fn given(&self, name: &str) -> Option<Given> {
        let file = self.file.as_ref().map(|file| &file.values);
        [
            (self.flags.get(name), Source::Flag),
            (self.env.get(name), Source::Environment),
            (file.and_then(|values| values.get(name)), Source::File),
        ]
        .into_iter()
        .find_map(|(text, source)| {
            Some(Given {
                text: text?.clone(),
                source,
            })
        })
    }

    /// Takes a value from one place only.
    pub(in crate::cli) fn given_by(&self, name: &str, source: Source) -> Option<&str> {
        let values = match source {
            Source::Flag => Some(&self.flags),
            Source::Environment => Some(&self.env),
            Source::File => self.file.as_ref().map(|file| &file.values),
            Source::Program | Source::Default => None,
        };
        values?.get(name).map(String::as_str)
    }

    /// Names a setting as its source does.
    pub(in crate::cli) fn named(&self, name: &str, source: Source) -> String {
        match source {
            Source::Flag | Source::Program | Source::Default => format!("--{name}"),
            Source::Environment => variable_of(name),
            Source::File => format!("`{}` in `{}`", key_of(name), self.file_path),
        }
    }

    pub(in crate::cli) fn refuse(&self, name: &str, refusal: &str) -> UsageError {
        let source = self
            .given(name)
            .map_or(Source::Default, |given| given.source);
        source.blame(format!("{} {refusal}", self.named(name, source)))
    }

    pub(in crate::cli) fn show(&mut self, name: &'static str, value: String, source: Source) {
        self.effective.push(Effective {
            name,
            value,
            source,
        });
    }

    /// Reads one setting.
    pub(in crate::cli) fn read<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Result<T, UsageError> {
        let (value, source) = match self.given(name) {
            None => (default, Source::Default),
            Some(given) => match parse(&given.text) {
                Ok(value) => (value, given.source),
                Err(refusal) => return Err(self.refuse(name, &refusal)),
            },
        };
        self.show(name, show(&value), source);
        Ok(value)
    }

    pub(in crate::cli) fn seconds(
        &mut self,
        name: &'static str,
        allowed: &RangeInclusive<f64>,
        default: Duration,
    ) -> Result<Duration, UsageError> {
        self.read(
            name,
            default,
            |text| values::seconds(text, allowed),
            |value| values::seconds_text(*value),
        )
    }

    pub(in crate::cli) fn count(
        &mut self,
        name: &'static str,
        allowed: &RangeInclusive<u16>,
        default: NonZeroU16,
    ) -> Result<NonZeroU16, UsageError> {
        self.read(
            name,
            default,
            |text| values::positive(text, allowed),
            NonZeroU16::to_string,
        )
    }

    pub(in crate::cli) fn batch_size(&mut self) -> Result<Option<NonZeroU16>, UsageError> {
        let growing = format!(
            "{}, growing to {} under load",
            config::CLAIM_EVENTS_FIRST,
            config::CLAIM_EVENTS_GROWN
        );
        self.read(
            "batch-size",
            None,
            |text| values::positive(text, &config::BATCH_SIZE).map(Some),
            |size| size.map_or_else(|| growing.clone(), |size| size.to_string()),
        )
    }

    pub(in crate::cli) fn log_level(&mut self) -> Result<LogLevel, UsageError> {
        self.read(
            "log-level",
            LogLevel::Info,
            |text| {
                LogLevel::parse(text).ok_or_else(|| {
                    format!(
                        "must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {}",
                        values::quoted(text)
                    )
                })
            },
            LogLevel::to_string,
        )
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
    let known: Vec<String> = SETTINGS.iter().map(|name| variable_of(name)).collect();
    let words = known
        .iter()
        .filter_map(|name| name.strip_prefix(ENV_PREFIX));
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
