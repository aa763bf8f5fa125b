//! What a setting is: an option of `run` that may also stand in the environment and in the
//! configuration file. `run` has the table of them.

use std::collections::BTreeMap;

use crate::domain::usage::UsageError;

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

/// Prefix of our environment variables.
pub(in crate::cli) const ENV_PREFIX: &str = "DISPATCHBOX_";

/// The name of a setting: `--batch-size`, `DISPATCHBOX_BATCH_SIZE`, `batch_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Name {
    /// The key in the file.
    pub(in crate::cli) key: &'static str,
    /// Where the setting may stand.
    pub(in crate::cli) places: &'static [Source],
}

impl Name {
    /// The option, without the dashes in front of it.
    pub(in crate::cli) fn option(self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable.
    pub(in crate::cli) fn variable(self) -> String {
        format!("{ENV_PREFIX}{}", self.key.to_ascii_uppercase())
    }
}

/// A setting with a value of its own type; the value is `()` where the text is read by rules of its
/// own.
pub(in crate::cli) struct Setting<T> {
    pub(in crate::cli) name: Name,
    /// The value where no place gives one.
    pub(in crate::cli) default: T,
    /// Reads a value; a refusal says what is allowed, and follows the name of the setting.
    pub(in crate::cli) read: fn(&str) -> Result<T, String>,
    /// Shows a value as the option would take it.
    pub(in crate::cli) show: fn(&T) -> String,
}

/// The texts that one place gives, by the names of the settings.
pub(in crate::cli) type Texts = BTreeMap<Name, String>;

/// Collects the options that were typed.
pub(in crate::cli) fn typed<const N: usize>(options: [(Name, Option<String>); N]) -> Texts {
    let options = options.into_iter();
    options
        .filter_map(|(name, text)| Some((name, text?)))
        .collect()
}

/// Declares the table of settings: the structure that argh fills, and [`SETTINGS`].
///
/// An entry is a field as argh takes it. Behind its type follow, where it has a value of its own,
/// the type of the value and the fields of its [`Setting`]: `as Duration { default: …, read: …,
/// show: … }`. Where it may not stand in all places, they follow before: `=> Flag | Environment`.
///
/// [`SETTINGS`]: crate::cli::settings::run::SETTINGS
macro_rules! settings {
    ($(#[$about:meta])* pub struct $args:ident { $(
        $(#[$($attribute:tt)*])*
        pub $field:ident: $typed:ident $(<$of:ident>)?
            $(=> $($place:ident)|+)?
            $(as $value:ty { $($parts:tt)* })?,
    )* }) => {
        $(#[$about])*
        #[derive(Debug, Default, Clone, PartialEq, Eq, argh::FromArgs, argh::ArgsInfo)]
        pub struct $args { $(
            $(#[$($attribute)*])*
            pub $field: $typed $(<$of>)?,
        )* }

        impl $args {
            /// The settings that were typed.
            pub(in crate::cli) fn given(&self) -> $crate::cli::settings::setting::Texts {
                $crate::cli::settings::setting::typed([$(
                    (SETTINGS.$field.name, settings!(@text $typed self.$field)),
                )*])
            }
        }

        /// The settings, by their keys in the file.
        pub(in crate::cli) struct Settings { $(
            pub(in crate::cli) $field:
                $crate::cli::settings::setting::Setting<settings!(@type $($value)?)>,
        )* }

        impl Settings {
            /// The names in the order of the help, and the defaults as the help shows them.
            pub(in crate::cli) fn all(&self) -> Vec<($crate::cli::settings::setting::Name, String)> {
                vec![$((self.$field.name, (self.$field.show)(&self.$field.default))),*]
            }

            /// The names of the settings that may stand in this place.
            pub(in crate::cli) fn names_in(
                &self,
                place: $crate::cli::settings::setting::Source,
            ) -> impl Iterator<Item = $crate::cli::settings::setting::Name> {
                let names = self.all().into_iter().map(|(name, _)| name);
                names.filter(move |name| name.places.contains(&place))
            }
        }

        /// All settings.
        pub(in crate::cli) static SETTINGS: Settings = Settings { $(
            $field: settings!(
                @setting $crate::cli::settings::setting::Name {
                    key: stringify!($field),
                    places: settings!(@places $($($place),+)?),
                },
                $($($parts)*)?
            ),
        )* };
    };
    // The text of an option as argh has read it. Routes have none: those of all places count.
    (@text Option $typed:expr) => { $typed.clone() };
    (@text bool $typed:expr) => { $typed.then(|| "true".to_owned()) };
    (@text Vec $typed:expr) => { None };
    (@type) => { () };
    (@type $value:ty) => { $value };
    (@setting $name:expr,) => {
        settings!(@setting $name, default: (), read: |_| Ok(()), show: |()| String::new())
    };
    (@setting $name:expr, $($parts:tt)+) => {
        $crate::cli::settings::setting::Setting { name: $name, $($parts)+ }
    };
    (@places) => { settings!(@places Flag, Environment, File) };
    (@places $($place:ident),+) => { &[$($crate::cli::settings::setting::Source::$place),+] };
}
pub(in crate::cli) use settings;
