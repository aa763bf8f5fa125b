//! psql reads the same texts, on a real server; and properties of the parser.

use std::fs;
use std::sync::PoisonError;

use dispatchbox::store::connect;
use dispatchbox::store::dsn::{Dsn, Env};
use proptest::prelude::*;

use super::{env_of, resolve};
use crate::support::cluster::shared;
use crate::support::psql::libpq_version;
use crate::support::session::TIMEOUTS;
use crate::support::{TestDir, psql};

/// What a connection made by our reading of the text says about itself, or why there is none.
fn ours(text: &str, env: &Env) -> Result<String, String> {
    let config = Dsn::resolve(Some(text), env, &mut Vec::new())
        .and_then(|dsn| dsn.to_postgres())
        .map_err(|err| err.to_string())?;
    let mut client = config
        .connect(postgres::NoTls)
        .map_err(|err| match err.as_db_error() {
            Some(err) => err.message().to_owned(),
            None => err.to_string(),
        })?;
    let row = client.query_one(WHO, &[]).map_err(|err| err.to_string())?;
    Ok(row.get(0))
}

/// The same for psql.
fn theirs(text: &str, env: &Env) -> Result<String, String> {
    psql::ask(WHO, text, env)
}

const WHO: &str = "select concat_ws('|', current_user, current_database(), current_setting('search_path'), \
                   current_setting('geqo'))";

/// Goal: what works with psql works here, and comes to the same. Method: connect both ways to a
/// real server.
#[test]
fn a_text_leads_to_where_psql_goes() {
    let (place, mut client) = {
        let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
        let place = cluster.directory().display().to_string();
        (place, cluster.client("postgres").unwrap())
    };
    // Not template1: whoever is connected to that keeps the other tests from making databases.
    for sql in [
        "CREATE ROLE \"o'hara \\ x\" SUPERUSER LOGIN",
        "CREATE DATABASE elsewhere TEMPLATE template0",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let encoded = place.replace('/', "%2F");
    let directory = TestDir::new();
    fs::write(
        directory.file(".pg_service.conf"),
        format!("[here]\nhost={place}\nuser=postgres\ndbname=postgres\n"),
    )
    .unwrap();
    let home = directory.path().display().to_string();
    let base = [("HOME", home.as_str())];
    let with = |more: &[(&str, &str)]| env_of(&[&base[..], more].concat());

    let cases = [
        (
            format!("host={place} user=postgres dbname=postgres"),
            with(&[]),
        ),
        (
            format!(" host = '{place}' user= postgres\ndbname=postgres"),
            with(&[]),
        ),
        (
            format!("host={place} user=postgres"),
            with(&[("PGDATABASE", "elsewhere")]),
        ),
        (format!("host={place} user=postgres"), with(&[])),
        (
            format!(r"host={place} user='o\'hara \\ x' dbname=postgres"),
            with(&[]),
        ),
        (
            format!(r"host={place} user=o\'hara\ \\\ x dbname=postgres"),
            with(&[]),
        ),
        (
            format!("postgresql://postgres@{encoded}/postgres"),
            with(&[]),
        ),
        (
            format!("postgres://o%27hara%20%5c%20x@{encoded}/elsewhere?options=-c%20geqo%3Doff"),
            with(&[]),
        ),
        (
            format!("postgres:///postgres?host={place}&user=postgres"),
            with(&[]),
        ),
        (
            format!("postgres://postgres@/postgres?host={encoded}"),
            with(&[]),
        ),
        (
            format!("host=/nonexistent,{place} user=postgres"),
            with(&[]),
        ),
        (
            format!("host={place} user=postgres options='-c search_path=a,b'"),
            with(&[]),
        ),
        (
            format!("host={place} user=postgres"),
            with(&[("PGOPTIONS", "-c search_path=x -c geqo=off")]),
        ),
        (
            "dbname=postgres".to_owned(),
            with(&[("PGHOST", &place), ("PGUSER", "postgres")]),
        ),
        ("service=here".to_owned(), with(&[])),
        ("service=here dbname=elsewhere".to_owned(), with(&[])),
        (String::new(), with(&[("PGSERVICE", "here")])),
        (
            format!(
                "host={place} user=postgres sslmode=allow gssencmode=disable client_encoding=utf8"
            ),
            with(&[]),
        ),
        (
            format!("host={place} user=postgres keepalives_idle=' 3 ' tcp_user_timeout=5"),
            with(&[]),
        ),
        (
            format!("host={place} user=postgres target_session_attrs=primary"),
            with(&[]),
        ),
    ];
    for (text, env) in cases {
        let theirs = theirs(&text, &env);
        assert!(theirs.is_ok(), "{text}: {theirs:?}");
        assert_eq!(ours(&text, &env), theirs, "{text}");
    }
}

/// The same for words that came with PostgreSQL 16, 17 and 18; psql is asked where its library
/// knows them.
#[test]
fn newer_words_lead_to_where_psql_goes() {
    let place = {
        let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
        cluster.directory().display().to_string()
    };
    for (since, words) in [
        (
            16,
            "gssdelegation=0 load_balance_hosts=random sslcertmode=allow",
        ),
        (17, "sslnegotiation=postgres"),
        (
            18,
            "sslkeylogfile=/nowhere max_protocol_version=latest min_protocol_version=3.0 \
             oauth_issuer=i oauth_client_id=c oauth_client_secret=s oauth_scope=o",
        ),
    ] {
        let text = format!("host={place} user=postgres dbname=postgres {words}");
        let ours = ours(&text, &Env::new());
        assert!(ours.is_ok(), "{text}: {ours:?}");
        if libpq_version() >= since {
            assert_eq!(ours, theirs(&text, &Env::new()), "{text}");
        }
    }
}

/// The same for lists of hosts, all the way that the program goes.
#[test]
fn a_list_of_hosts_leads_to_where_psql_goes() {
    let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
    let place = cluster.directory().display().to_string();
    drop(cluster);
    let encoded = place.replace('/', "%2F");
    for (text, env) in [
        (
            format!("host={place},{place} port=1,5432 user=postgres target_session_attrs=any"),
            env_of(&[]),
        ),
        (
            format!(
                "postgres://postgres@{encoded}:1,{encoded}:5432/postgres?target_session_attrs=read-write"
            ),
            env_of(&[("PGPORT", "2")]),
        ),
        (
            format!("host=127.0.0.1,{place} hostaddr=127.0.0.1, port=1,5432 user=postgres"),
            env_of(&[("PGTARGETSESSIONATTRS", "read-write")]),
        ),
    ] {
        let theirs = theirs(&text, &env).unwrap();
        let dsn = Dsn::resolve(Some(&text), &env, &mut Vec::new()).unwrap();
        let database = connect(&dsn, &TIMEOUTS, "test").unwrap().database();
        assert_eq!(
            theirs.split('|').nth(1),
            Some(&*database.unwrap()),
            "{text}"
        );
        assert_eq!(ours(&text, &env), Ok(theirs), "{text}");
    }
}

#[test]
fn what_psql_refuses_is_refused_here() {
    for text in [
        "nosuchword=x",
        "require_auth=scram",
        "require_auth=md5,md5",
        "require_auth=md5,!none",
        "sslcertmode=maybe",
        "sslnegotiation=maybe",
        "max_protocol_version=3.1",
        "min_protocol_version=2",
        "postgres://u:a b@h",
        "host",
        "hots=x",
        "password='x",
        "port=0",
        "port=x",
        "host=a,b port=1,2,3",
        "host=a,b hostaddr=127.0.0.1",
        "postgres://[::1",
        "postgres://[]",
        "postgres://h?user",
        "postgres://h?user=a=b",
        "postgres://h?usr=x",
        "postgres://%zz",
        "postgres://h:x/",
        "sslmode=on",
        "target_session_attrs=none",
        "channel_binding=maybe",
        "service=none",
    ] {
        assert!(theirs(text, &Env::new()).is_err(), "psql takes {text}");
        assert!(resolve(text, &[]).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: odd quoting means the same to both. Method: a database that is not there is named in
    /// the server's refusal.
    #[test]
    fn odd_values_are_what_psql_makes_of_them(value in r"[ a-c'\\=%:@/?]{1,8}", is_url in any::<bool>()) {
        let place = {
            let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
            cluster.directory().display().to_string()
        };
        let text = if is_url {
            // Before PostgreSQL 18 plain blanks in a URL stood for themselves.
            let value = if libpq_version() < 18 { value.replace(' ', "%20") } else { value };
            format!("postgres://postgres@{}/{value}", place.replace('/', "%2F"))
        } else {
            format!("host={place} user=postgres dbname={value}")
        };
        let theirs = theirs(&text, &Env::new());
        match (ours(&text, &Env::new()), theirs) {
            (Ok(ours), theirs) => prop_assert_eq!(Ok(ours), theirs),
            (Err(ours), Err(theirs)) if ours.starts_with("database ") => {
                prop_assert!(theirs.ends_with(&ours), "{text}: {ours} / {theirs}");
            }
            // Names that are not UTF-8 exist for psql alone.
            (Err(_), Err(theirs)) if theirs.contains('\u{fffd}') => {}
            (Err(ours), Err(theirs)) => {
                prop_assert!(!theirs.contains("does not exist"), "{text}: {ours} / {theirs}");
            }
            (Err(ours), Ok(theirs)) => prop_assert!(false, "{text}: {ours} / {theirs}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![
        any::<String>(),
        any::<String>().prop_map(|rest| format!("postgres://{rest}")),
        r"[a-z=' \\:/@?&%,\[\]0-9]{0,40}",
        r"(postgres://)?[a-z=' \\:/@?&%,\[\]0-9]{0,40}",
    ]) {
        if let Ok(dsn) = Dsn::parse(&text) {
            prop_assert!(dsn.to_postgres().is_ok());
            prop_assert!(dsn.display().ends_with(dsn.to_postgres().unwrap().get_user().unwrap()));
        }
        Dsn::password_in_text(&text);
    }

    #[test]
    fn no_password_is_ever_shown(password in "[^\0]{1,20}") {
        // Something that no message has by itself.
        let password = format!("q{password}7");
        let quoted = password.replace('\\', r"\\").replace('\'', r"\'");
        for rest in ["", " hots=x", " sslmode=require", " port=x", " x"] {
            let text = format!("host=h user=u dbname=d password='{quoted}'{rest}");
            match Dsn::parse(&text) {
                Ok(dsn) => {
                    let config = dsn.to_postgres().unwrap();
                    prop_assert_eq!(config.get_password(), Some(password.as_bytes()));
                    let shown = format!("{dsn:?}{}{}", dsn.identity(), dsn.display());
                    prop_assert!(!shown.contains(&password));
                }
                Err(err) => prop_assert!(!err.to_string().contains(&password)),
            }
        }
    }
}
