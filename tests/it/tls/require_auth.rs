//! By which methods the server may ask for the login: nothing else is answered.

use dispatchbox::store::dsn::Env;

use super::{address, env_of, made_up, open, open_briefly, server_of_db1, theirs};
use crate::support::psql::libpq_version;

/// Goal: each list of methods allows what libpq's allows, with TLS and without. psql is asked, too,
/// where its library knows the keyword.
#[test]
fn a_list_of_methods_allows_what_libpqs_does() {
    let _server = server_of_db1(20);
    let by = |method: &str| format!("the server asks for authentication by {method}, which");
    let by_none = "the server asks for no authentication, which require_auth does not allow";
    let cases = [
        ("locked", "scram-sha-256", None),
        ("locked", "md5,scram-sha-256", None),
        ("locked", "none,scram-sha-256", None),
        ("locked", "!password", None),
        ("locked", "!password,!md5,!none", None),
        ("locked", "password", Some(by("scram-sha-256"))),
        ("locked", "none", Some(by("scram-sha-256"))),
        ("locked", "!scram-sha-256", Some(by("scram-sha-256"))),
        ("locked", "gss", Some(by("scram-sha-256"))),
        ("cleartext", "password", None),
        ("cleartext", "!none", None),
        ("cleartext", "scram-sha-256", Some(by("password"))),
        ("cleartext", "!password", Some(by("password"))),
        ("hashed", "md5", None),
        ("hashed", "!md5", Some(by("md5"))),
        ("hashed", "scram-sha-256", Some(by("md5"))),
        ("postgres", "none", None),
        ("postgres", "none,md5", None),
        ("postgres", "!md5", None),
        ("postgres", "!none", Some(by_none.to_owned())),
        ("postgres", "scram-sha-256", Some(by_none.to_owned())),
    ];

    for (user, list, refusal) in cases {
        for mode in ["disable", "allow", "prefer", "require"] {
            let text = format!(
                "host={} user={user} password=hunter2 dbname=postgres sslmode={mode}",
                address(20)
            );
            let env = env_of(&[("PGREQUIREAUTH", list)]);
            let by_variable = open(&text, &env).map(drop);
            let text = format!("{text} require_auth={list}");
            let ours = open(&text, &Env::new()).map(drop);

            assert_eq!(by_variable, ours, "{text}");
            match &refusal {
                None => assert_eq!(ours, Ok(()), "{text}"),
                Some(refusal) => {
                    let error = ours.as_ref().unwrap_err();
                    assert!(error.contains(refusal.as_str()), "{text}: {error}");
                }
            }
            // The keyword is of PostgreSQL 16.
            if libpq_version() >= 16 {
                let theirs = theirs(&text, &Env::new());
                assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {theirs:?}");
            }
        }
    }
}

/// Goal: a server that asks for the password in plain text does not get it.
#[test]
fn a_method_that_is_not_allowed_is_not_answered() {
    for (rule, is_sent) in [("scram-sha-256", false), ("password", true)] {
        let (port, serving) = made_up(b"R\0\0\0\x08\0\0\0\x03");
        let text = format!(
            "host=127.0.0.1 port={port} user=u password=hunter2 dbname=d sslmode=disable require_auth={rule}"
        );

        let error = open_briefly(&text).err().unwrap();

        let said = serving.join().unwrap();
        assert_eq!(
            said.windows(7).any(|word| word == b"hunter2"),
            is_sent,
            "{error}"
        );
    }
}

/// Goal: where it cannot be seen how the server asks, the rule is refused and not passed over.
#[test]
fn over_a_unix_socket_the_rule_is_refused() {
    let server = crate::support::cluster::shared()
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = server.dsn("postgres");
    drop(server);

    open(&text, &Env::new()).unwrap();
    let error = open(&format!("{text} require_auth=none"), &Env::new()).err();

    let error = error.unwrap();
    let refusal = "require_auth cannot be kept to over a Unix socket by this version";
    assert!(error.contains(refusal), "{error}");
}
