//! TLS that begins at once, without a question in plain text: PostgreSQL 17 and newer.

use dispatchbox::store::dsn::Env;

use super::{Files, Wanted, YEARS, address, authority, open, ours, server, theirs};
use crate::support::TestDir;
use crate::support::psql::libpq_version;
use crate::support::versions::major_version;

/// Goal: a server that has it is connected to so, as by psql, with its certificate checked; of an
/// older one the error says what is missing.
#[test]
fn direct_tls_works_where_the_server_has_it_and_says_so_where_not() {
    let authority = authority("ours");
    let files = Files {
        directory: TestDir::new(),
    };
    let root = files.put("root.crt", &authority.pem(), 0o644);
    let wanted = Wanted {
        common: "server",
        dns: &["db1"],
        addresses: &[],
        years: YEARS,
    };
    let server = server(21, Some(&wanted.signed_by(&authority)), &authority);
    let mut watchers = [server.client("postgres").unwrap()];
    let version = major_version(&mut watchers[0]);
    let host = format!("hostaddr={} user=postgres dbname=postgres", address(21));

    for words in [
        "host=db1 sslmode=require",
        "host=db1 sslmode=verify-ca",
        "host=db1 sslmode=verify-full",
        "host=db2 sslmode=verify-full",
        "host=db1 sslmode=verify-full user=locked password=hunter2 channel_binding=require",
    ] {
        let text = format!("{host} {words} sslrootcert={root} sslnegotiation=direct");
        let ours = ours(&text, &Env::new(), &mut watchers);
        if version < 17 {
            let error = ours.unwrap_err();
            assert!(
                error.contains("sslnegotiation=direct needs PostgreSQL 17 or newer"),
                "{text}: {error}"
            );
        } else if words.contains("db2") {
            let error = ours.unwrap_err();
            assert!(error.contains("is for `db1`, not for `db2`"), "{error}");
        } else {
            // The same session as with the question before.
            let asked = text.replace("sslnegotiation=direct", "");
            assert!(open(&asked, &Env::new()).is_ok(), "{asked}");
            assert!(ours.as_ref().unwrap().contains("|true|TLSv1.3"), "{ours:?}");
            // The keyword is of PostgreSQL 17.
            if libpq_version() >= 17 {
                assert_eq!(theirs(&text, &Env::new()), ours, "{text}");
            }
        }
        if version < 17 && libpq_version() >= 17 {
            assert!(theirs(&text, &Env::new()).is_err(), "{text}");
        }
    }
}
