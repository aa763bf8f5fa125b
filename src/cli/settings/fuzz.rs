//! Laws of the configuration file, of single values and of `--route`, on generated texts. Only
//! tests are built with it.

use std::fmt::Debug;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use crate::cli::settings::file::File;
use crate::cli::settings::routes::{self, RouteDefaults};
use crate::cli::settings::run::{RunArgs, SETTINGS};
use crate::cli::settings::setting::{Setting, Source};
use crate::cli::settings::{Env, explain, values};
use crate::domain::config::Config;
use crate::handlers::{Handlers, check_pattern};
use crate::system::fuzz;

/// A word that a person would not want to see in an error, such as a password.
const SECRET: &str = "Zq9-Xk7";

/// A configuration file of this process and thread, removed at the end.
struct TempFile(String);

impl TempFile {
    fn new() -> TempFile {
        let thread = format!("{:?}", std::thread::current().id());
        let n: String = thread.chars().filter(char::is_ascii_digit).collect();
        let name = format!("dispatchbox-fuzz-{}-{n}.toml", std::process::id());
        TempFile(std::env::temp_dir().join(name).display().to_string())
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a temporary file can be written");
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Texts that are values of some setting, or nearly so.
fn value_like() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[0-9]{1,6}",
        2 => (0.0..1e6).prop_map(|number: f64| number.to_string()),
        2 => "[0-9]{0,5}\\.[0-9]{1,12}",
        1 => "[+-]?[0-9]{1,22}([eE]-?[0-9]{1,2})?",
        1 => "[0-9]{1,6} ?[kKmMgG]?i?[bB]?",
        1 => "\\[?(::|[a-f0-9]{1,4}:|[0-9.]|[a-z-]){1,9}\\]?(%[a-z0-9]{1,4})?",
        1 => "[A-Za-z0-9.:,\\[\\] -]{0,14}",
        1 => prop_oneof![Just("true"), Just("off"), Just("debug"), Just("Warning"), Just("nan"), Just("inf"), Just("-0")]
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

/// What is read is shown so that it is read again as the same, and what is refused is told what is
/// allowed, in one line.
fn check<T: PartialEq + Debug>(setting: &Setting<T>, text: &str) -> Result<(), TestCaseError> {
    let key = setting.name.key;
    match (setting.read)(text) {
        Ok(value) => {
            let shown = (setting.show)(&value);
            prop_assert_eq!(
                (setting.read)(&shown),
                Ok(value),
                "{} {:?} is shown as {:?}",
                key,
                text,
                shown
            );
        }
        Err(refusal) => {
            prop_assert!(refusal.starts_with("must "), "{key} {refusal}");
            prop_assert!(!refusal.contains(char::is_control), "{key} {refusal:?}");
            prop_assert!(refusal.len() < 400, "{key} {refusal}");
        }
    }
    Ok(())
}

/// A line of a file: a key, and its value in TOML.
fn line() -> impl Strategy<Value = (&'static str, toml::Value)> {
    let keys: Vec<&str> = SETTINGS
        .names_in(Source::File)
        .map(|name| name.key)
        // These name files of their own.
        .filter(|key| !key.ends_with("_file"))
        .collect();
    let value = prop_oneof![
        4 => (0..100_i64).prop_map(toml::Value::Integer),
        2 => any::<i64>().prop_map(toml::Value::Integer),
        2 => (0.0..1000.0).prop_map(toml::Value::Float),
        1 => any::<f64>().prop_map(toml::Value::Float),
        2 => any::<bool>().prop_map(toml::Value::Boolean),
        4 => value_like().prop_map(toml::Value::String),
        1 => Just(toml::Value::Array(vec![toml::Value::Integer(1)])),
    ];
    (prop::sample::select(keys), value)
}

/// Texts that are nearly TOML; the secret is never a key, which errors may name.
fn toml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(SETTINGS.names_in(Source::File).map(|name| name.key).collect::<Vec<&str>>())
            .prop_map(str::to_owned),
        2 => Just("[[route]]\nevent_type = \"*\"\nhandler = \"log\"\n".to_owned()),
        2 => Just(format!("dsn = \"host=h password={SECRET}\"\n")),
        1 => Just(format!("= \"{SECRET}")),
        1 => Just(format!("= '{SECRET}'\n")),
        1 => Just(format!("dsn = \"postgres://u:{SECRET}@h/%\"\n")),
        3 => "[=\"'\n\\[\\]{}., #\\\\]{1,3}",
        3 => "[a-z0-9_]{1,5}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn resolved(file: &TempFile) -> Result<(Config, Vec<String>), String> {
    let args = RunArgs {
        config: Some(file.0.clone()),
        ..RunArgs::default()
    };
    let found = explain(&args, &Env::new(), &Handlers::default());
    let (settings, effective) = found.map_err(|error| {
        let error = (error.exit_code(), error.to_string());
        let is_unnamed = error == (2, "no database is named: give --dsn".to_owned());
        assert!(error.0 == 78 || is_unnamed, "{error:?}");
        error.1
    })?;
    let from_file = effective
        .into_iter()
        .filter(|one| one.source == Source::File);
    Ok((settings.config, from_file.map(|one| one.name).collect()))
}

fn defaults() -> RouteDefaults {
    let config = Config::default();
    RouteDefaults {
        timeout: config.handler_timeout,
        retry: config.retry,
    }
}

proptest! {
    #![proptest_config(fuzz::cases(1000))]

    #[test]
    fn a_value_is_shown_as_it_is_read(text in value_like()) {
        check(&SETTINGS.processes, &text)?;
        check(&SETTINGS.batch_size, &text)?;
        check(&SETTINGS.max_batch_bytes, &text)?;
        check(&SETTINGS.poll_interval, &text)?;
        check(&SETTINGS.handler_timeout, &text)?;
        check(&SETTINGS.max_attempts, &text)?;
        check(&SETTINGS.retry_backoff_seconds, &text)?;
        check(&SETTINGS.retry_multiplier, &text)?;
        check(&SETTINGS.retry_jitter, &text)?;
        check(&SETTINGS.lease_seconds, &text)?;
        check(&SETTINGS.drain_timeout, &text)?;
        check(&SETTINGS.connect_timeout, &text)?;
        check(&SETTINGS.http_host, &text)?;
        check(&SETTINGS.http_port, &text)?;
        check(&SETTINGS.http_open_api, &text)?;
        check(&SETTINGS.http_allowed_hosts, &text)?;
        check(&SETTINGS.log_level, &text)?;
    }

    #[test]
    fn a_duration_loses_nothing_by_being_shown(nanos in 0..86_400_000_000_000_u64) {
        let duration = Duration::from_nanos(nanos);
        let shown = values::seconds_text(duration);
        prop_assert_eq!(values::seconds(&shown, &(0.0..=86_400.0)), Ok(duration), "{}", shown);
    }

    #[test]
    fn an_id_is_any_number_of_its_type_and_nothing_else(id: i64, text in value_like()) {
        prop_assert_eq!(values::event_id(&id.to_string()), Ok(id));
        prop_assert_eq!(values::event_id(&text).ok(), text.parse().ok(), "{}", text);
    }

    #[test]
    fn a_file_is_taken_as_it_stands_or_the_key_is_named(
        lines in prop::collection::btree_map(line().prop_map(|(key, _)| key), line().prop_map(|(_, value)| value), 0..4),
    ) {
        let file = TempFile::new();
        let table: toml::Table = lines.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let mut whole = table.clone();
        whole.entry("dsn").or_insert(toml::Value::String("host=h".to_owned()));
        let route: toml::Table = [("event_type", "*"), ("handler", "log")].into_iter()
            .map(|(key, value)| (key.to_owned(), toml::Value::String(value.to_owned()))).collect();
        whole.insert("route".to_owned(), toml::Value::Array(vec![toml::Value::Table(route)]));
        file.write(&toml::to_string(&whole).map_err(|error| TestCaseError::fail(error.to_string()))?);

        match resolved(&file) {
            Ok((config, names)) => {
                prop_assert_eq!(config.routes.len(), 1);
                for key in lines.keys() {
                    let name = key.replace('_', "-");
                    prop_assert!(names.contains(&name), "{name} {names:?}");
                }
                let again = File::read(&file.0).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(again.values.len(), whole.len() - 1);
            }
            Err(error) => {
                let names_it = |key: &&str| error.contains(*key) || error.contains(key.replace('_', "-").as_str());
                prop_assert!(lines.keys().any(names_it), "{error}");
                prop_assert!(error.len() < 1000 && !error.contains('\n'), "{error}");
            }
        }
    }

    #[test]
    fn no_error_of_a_file_shows_what_may_be_a_secret(text in prop_oneof![9 => toml_like(), 1 => any::<String>()]) {
        let file = TempFile::new();
        file.write(&text);
        if let Err(error) = resolved(&file) {
            // Values of other settings are shown.
            let others = toml::from_str::<toml::Table>(&text).map(|mut table| {
                table.remove("dsn");
                table.to_string()
            });
            let is_shown = others.is_ok_and(|others| others.contains(SECRET));
            prop_assert!(is_shown || !error.contains(SECRET), "{text}\n{error}");
        }
    }

    #[test]
    fn a_route_on_the_command_line_is_what_was_written(
        pattern in "([a-z]{1,5}\\.){0,2}([a-z]{1,5}|\\*)",
        words in prop::collection::vec("[^\0]{1,8}", 1..4),
        path in "[!-~]{0,12}",
        form in 0..4_u8,
    ) {
        let command = shlex::try_join(words.iter().map(String::as_str)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let (handler, kind, settings) = match form {
            0 => ("log".to_owned(), "log", None),
            1 => (format!("https://h/{path}"), "http", Some(("url", serde_json::json!(format!("https://h/{path}"))))),
            2 => ("my-handler.v2".to_owned(), "my-handler.v2", None),
            _ => (format!("exec:{command}"), "exec", Some(("command", serde_json::json!(words)))),
        };

        let spec = routes::from_flag(&format!("{pattern}={handler}"), &defaults()).map_err(TestCaseError::fail)?;

        prop_assert_eq!(&spec.patterns, &[pattern]);
        prop_assert_eq!(&spec.handler.kind, kind);
        if let Some((key, value)) = settings {
            prop_assert_eq!(&spec.handler.settings[key], &value);
        }
    }

    #[test]
    fn a_route_is_taken_only_with_a_pattern_and_a_refusal_shows_no_receiver(
        text in prop_oneof![
            Just(format!("https://h/{SECRET}=1")),
            "[a-z.* ]{0,6}=?(http|https|exec|log|x)?:?/{0,2}".prop_map(|begin| format!("{begin}{SECRET}")),
            "[a-z.*=: /'\"]{0,16}",
            any::<String>(),
        ],
    ) {
        match routes::from_flag(&text, &defaults()) {
            Ok(spec) => {
                let (pattern, _) = text.split_once('=').ok_or_else(|| TestCaseError::fail(text.clone()))?;
                prop_assert_eq!(&spec.patterns, &[pattern.to_owned()]);
                prop_assert!(check_pattern(pattern).is_ok(), "{text}");
            }
            Err(refusal) => {
                let receiver = text.split_once('=').map_or("", |(_, receiver)| receiver);
                prop_assert!(!receiver.contains(SECRET) || !refusal.contains(SECRET), "{text}: {refusal}");
                prop_assert!(!text.starts_with("https:/") || !refusal.contains(SECRET), "{text}: {refusal}");
            }
        }
    }
}
