//! Connection descriptions: libpq's two forms and what becomes of each keyword.

/// Variables, the service file and the passfile.
mod files;
/// The same texts read by psql, and texts that nobody would write.
mod psql;

use std::time::Duration;

use dispatchbox::store::dsn::{Dsn, Env};
use postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};

/// What the driver is told, on one line.
fn shown(config: &postgres::Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .chain(
            config
                .get_hostaddrs()
                .iter()
                .map(|address| format!("={address}")),
        )
        .zip(config.get_ports().iter().cycle())
        .map(|(host, port)| format!("{host}:{port}"))
        .collect();
    let password = config.get_password().map(String::from_utf8_lossy);
    format!(
        "{} {}@{} {}",
        hosts.join(","),
        config.get_user().unwrap(),
        config.get_dbname().unwrap(),
        password.unwrap_or_default()
    )
    .trim_end()
    .to_owned()
}

fn env_of(pairs: &[(&str, &str)]) -> Env {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn resolve(text: &str, env: &[(&str, &str)]) -> Result<Dsn, String> {
    Dsn::resolve(Some(text), &env_of(env), &mut Vec::new()).map_err(|err| err.to_string())
}

#[track_caller]
fn check(text: &str, expected: &str) {
    check_env(text, &[], expected);
}

#[track_caller]
fn check_env(text: &str, env: &[(&str, &str)], expected: &str) {
    let config = resolve(text, env).unwrap().to_postgres().unwrap();
    assert_eq!(shown(&config), expected, "{text}");
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    assert_eq!(resolve(text, &[]).unwrap_err(), expected, "{text}");
}

#[test]
fn the_keyword_form_is_read_with_quotes_and_backslashes() {
    check("host=h port=1 user=u dbname=d password=p", "h:1 u@d p");
    check("  host = h\tuser= u\n dbname =d ", "h:5432 u@d");
    check(
        r"host=h user=u dbname=d password='a b\'c\\d'",
        r"h:5432 u@d a b'c\d",
    );
    check(
        r"host=h user=u dbname=d password=a\ b\'c",
        "h:5432 u@d a b'c",
    );
    check("host=h user=u dbname=d password=''", "h:5432 u@d");
    check("host=h user=u dbname=d user=v", "h:5432 v@d");
    check("host='h'user=u dbname=d", "h:5432 u@d");
    check("host=h user=u dbname=postgres://x", "h:5432 u@postgres://x");
}

#[test]
fn the_url_form_is_read_with_its_codes_and_hosts() {
    check("postgresql://u:p@h:1/d", "h:1 u@d p");
    check("postgres://u@h/d", "h:5432 u@d");
    check("postgres://u%40v:p%3a%2F%25@h/d%20e", "h:5432 u@v@d e p:/%");
    check("postgres://u@h1:1,h2,h3:3/d", "h1:1,h2:5432,h3:3 u@d");
    check("postgres://u@[::1]:6,[fe80::1]/d", "::1:6,fe80::1:5432 u@d");
    check("postgres://u@%2Fvar%2Frun%2Fx:7/d", "/var/run/x:7 u@d");
    check(
        "postgres:///d?host=/tmp/s&user=u&port=9&password=p+q",
        "/tmp/s:9 u@d p+q",
    );
    check("postgres://h?user=u&dbname=d", "h:5432 u@d");
    check("postgres://u@h/d?", "h:5432 u@d");
    check("postgres://u:@h/d", "h:5432 u@d");
    check("postgres://u@h/d?user=v", "h:5432 v@d");
    check("postgres://u@h/d/e", "h:5432 u@d/e");
    check("postgres:// u :p%20 @h / d?user = v ", "h:5432 v@d p");
}

#[test]
fn what_cannot_be_read_is_refused_without_its_values() {
    let quotes = "a value that holds blanks needs quotes: application_name='my shop'";
    check_refused("host", &format!("word 1 has no `=`; {quotes}"));
    check_refused(
        "password=my secret",
        &format!("word 2 has no `=`; {quotes}"),
    );
    check_refused("password='x", "a quoted value is not closed");
    check_refused("hots=x", "unknown keyword `hots`; did you mean `host`?");
    check_refused(
        "password=my s3cret=x",
        &format!("there is an unknown keyword; {quotes}"),
    );
    for url in [
        "mysql://h/d",
        "postgres//h/d",
        "postgresql:/h/d",
        "postgres:h?sslmode=require",
    ] {
        check_refused(url, "a URL must begin with postgresql:// or postgres://");
    }
    let codes = "in a URL, `/` in a password is written %2F, `:` %3A and `@` %40";
    let port = format!("port must be a number from 1 to 65535; {codes}");
    for text in [
        "port=0",
        "port=65536",
        "port=x",
        "host=a,b port=1,x",
        "postgres://u:p/w@h/d",
        "postgres://h:-1",
    ] {
        check_refused(text, &port);
    }
    check_refused(
        "postgres://u:p@w@h/d",
        "host must be a host name, an address or a directory; in a URL, `@` in a password is written %40",
    );
    check_refused(
        "postgres://u:%zz@h/d",
        "password holds a `%` code that cannot be read; write `%` itself as %25",
    );
    check_refused(
        "postgres://h/%00",
        "dbname holds a `%` code that cannot be read; write `%` itself as %25",
    );
    check_refused(
        "postgres://u:%ff@h/d",
        "password holds a `%` code that cannot be read; write `%` itself as %25",
    );
    for url in ["postgres://u:a b@h/d", "postgres://u:a\t@h/d"] {
        check_refused(url, "password holds a blank; in a URL it is written as %20");
    }
    check_refused(
        "postgres://[::1/d",
        "an IPv6 address in a URL must stand in brackets: [::1]",
    );
    check_refused(
        "postgres://[]/d",
        "an IPv6 address in a URL must stand in brackets: [::1]",
    );
    check_refused(
        "postgres://[::1]x/d",
        "unexpected characters follow an IPv6 address",
    );
    let parameter = "each parameter behind `?` must have one `=`; write `=` in a value as %3D";
    check_refused("postgres://h/d?user", parameter);
    check_refused("postgres://h/d?user=a=b", parameter);
    check_refused("postgres://h/d?user=u&", parameter);
    check_refused(
        "postgres://h/d?usr=u",
        "unknown keyword `usr`; did you mean `user`?",
    );
    check_refused("host=a\0b", "it holds a NUL character");
    check_refused("host=a,b hostaddr=::1", "hostaddr has 1 value for 2 hosts");
    check_refused("host=a,b,c port=1,2", "port has 2 values for 3 hosts");
    check_refused("hostaddr=localhost", "hostaddr must be an IP address");
    check_refused(
        "host=@abstract",
        "host names an abstract unix socket, which this version cannot open",
    );
    check_refused(
        "keepalives_idle=soon",
        "keepalives_idle must be a whole number",
    );
    check_refused(
        "sslmode=on",
        "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full",
    );
}

#[test]
fn words_about_tls_that_contradict_each_other_are_refused() {
    for (text, refusal) in [
        (
            "host=h sslmode=require sslrootcert=system",
            "sslmode=require is too weak for sslrootcert=system: any public authority would do for any host; use verify-full",
        ),
        (
            "host=h sslnegotiation=direct",
            "sslmode=prefer is too weak for sslnegotiation=direct; use require, verify-ca or verify-full",
        ),
        (
            "host=h sslnegotiation=maybe",
            "sslnegotiation must be one of postgres, direct",
        ),
        (
            "host=h sslcertmode=maybe",
            "sslcertmode must be one of disable, allow, require",
        ),
        (
            "host=h ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version is above ssl_max_protocol_version",
        ),
    ] {
        check_refused(text, refusal);
    }
    assert_eq!(
        resolve("host=h sslrootcert=system", &[("PGSSLMODE", "require")]).unwrap_err(),
        "PGSSLMODE=require is too weak for sslrootcert=system: any public authority would do for any host; use verify-full"
    );
    for text in [
        "host=h user=u dbname=d sslrootcert=system",
        "host=h user=u dbname=d sslmode=verify-full sslrootcert=system sslnegotiation=direct",
        "host=h user=u dbname=d sslmode=prefer sslcert=x sslrootcert=y",
    ] {
        check(text, "h:5432 u@d");
    }
}

#[test]
fn what_restricts_a_connection_is_kept_to_or_refused() {
    let refused =
        |keyword: &str| format!("{keyword} cannot be kept to by this version, so it is refused");
    check_refused("requirepeer=postgres", &refused("requirepeer"));
    check_refused("scram_client_key=x", &refused("scram_client_key"));
    check_refused(
        "min_protocol_version=3.2",
        "min_protocol_version may only be 3.0 in this version",
    );
    check_refused(
        "max_protocol_version=3.1",
        "max_protocol_version must be one of 3.0, 3.2, latest",
    );
    check(
        "host=h user=u dbname=d sslkeylogfile=/f max_protocol_version=latest oauth_issuer=i oauth_client_id=c oauth_client_secret=s oauth_scope=o",
        "h:5432 u@d",
    );
    let list = "require_auth must be a list of password, md5, gss, sspi, scram-sha-256, oauth, none, without blanks";
    let mixed =
        "require_auth names either what is allowed or, each with `!` before it, what is not";
    check_refused("require_auth=scram", list);
    check_refused("require_auth='md5, none'", list);
    check_refused("require_auth=md5,", list);
    check_refused("require_auth=!!md5", list);
    check_refused("require_auth=!md5,none", mixed);
    check_refused("require_auth=none,!md5", mixed);
    check_refused(
        "require_auth=md5,none,md5",
        "require_auth names a method twice",
    );
    assert_eq!(
        resolve("host=h", &[("PGREQUIREAUTH", "scram")]).unwrap_err(),
        list.replace("require_auth", "PGREQUIREAUTH")
    );
    check(
        "host=h user=u dbname=d require_auth=!password,!none",
        "h:5432 u@d",
    );
    check_refused(
        "gssencmode=require",
        "gssencmode may only be disable or prefer in this version",
    );
    check_refused(
        "replication=database",
        "replication may only be false or off or no or 0 in this version",
    );
    check_refused("client_encoding=LATIN1", "client_encoding must be UTF8");
    check_refused(
        "target_session_attrs=standby",
        "target_session_attrs=standby leads to a server that cannot be written to, and claiming events is writing; use read-write",
    );
    check(
        "host=h user=u dbname=d gssencmode=prefer client_encoding=utf8 replication=off krbsrvname=x",
        "h:5432 u@d",
    );
}

#[test]
fn the_session_asked_for_is_one_that_can_write() {
    let target = |text: &str| {
        let config = resolve(text, &[]).unwrap().to_postgres().unwrap();
        config.get_target_session_attrs()
    };
    assert_eq!(target("host=a"), TargetSessionAttrs::Any);
    assert_eq!(target("host=a,b"), TargetSessionAttrs::ReadWrite);
    assert_eq!(
        target("host=a,b target_session_attrs=any"),
        TargetSessionAttrs::Any
    );
    assert_eq!(
        target("host=a target_session_attrs=primary"),
        TargetSessionAttrs::ReadWrite
    );
    assert_eq!(
        target("host=a target_session_attrs=read-write"),
        TargetSessionAttrs::ReadWrite
    );
}

#[test]
fn times_have_libpqs_units() {
    let config = |text: &str| resolve(text, &[]).unwrap().to_postgres().unwrap();
    let default = config("host=h");
    assert_eq!(default.get_connect_timeout(), None);
    assert!(default.get_keepalives());
    assert_eq!(default.get_keepalives_idle(), Duration::from_secs(10));
    assert_eq!(
        default.get_keepalives_interval(),
        Some(Duration::from_secs(5))
    );
    assert_eq!(default.get_keepalives_retries(), Some(3));
    assert_eq!(
        default.get_tcp_user_timeout(),
        Some(&Duration::from_secs(25))
    );

    let given = config(
        "host=h connect_timeout=1 keepalives=0 keepalives_idle=7 keepalives_interval=8 keepalives_count=9 \
         tcp_user_timeout=1500 load_balance_hosts=random options='-c geqo=off' application_name=a",
    );
    assert_eq!(given.get_connect_timeout(), Some(&Duration::from_secs(2)));
    assert!(!given.get_keepalives());
    assert_eq!(given.get_keepalives_idle(), Duration::from_secs(7));
    assert_eq!(
        given.get_keepalives_interval(),
        Some(Duration::from_secs(8))
    );
    assert_eq!(given.get_keepalives_retries(), Some(9));
    assert_eq!(
        given.get_tcp_user_timeout(),
        Some(&Duration::from_millis(1500))
    );
    assert_eq!(given.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(given.get_options(), Some("-c geqo=off"));
    assert_eq!(given.get_application_name(), Some("a"));
    assert_eq!(
        config("connect_timeout=-1 host=h").get_connect_timeout(),
        None
    );
    assert_eq!(
        config("tcp_user_timeout=0 host=h").get_tcp_user_timeout(),
        None
    );
}

#[test]
fn addresses_stand_beside_names_or_for_them() {
    check(
        "host=a,b hostaddr=::1,127.0.0.1 user=u dbname=d port=1,2",
        "a:1,b:2,=::1:1,=127.0.0.1:2 u@d",
    );
    check("hostaddr=127.0.0.1 user=u dbname=d", "=127.0.0.1:5432 u@d");
    check(
        "host=a,b hostaddr=,127.0.0.1 user=u dbname=d",
        "a:5432,127.0.0.1:5432 u@d",
    );
}

#[test]
fn a_dsn_names_itself_without_its_password() {
    let dsn = Dsn::parse(
        "host=h,/tmp/s port=1,2 user=u dbname=d password=hunter2 options='-c x=hunter2'",
    )
    .unwrap();
    assert_eq!(dsn.identity(), "h:1,/tmp/s:2/d");
    assert_eq!(dsn.display(), "h:1,/tmp/s:2/d as u");
    assert_eq!(format!("{dsn:?}"), "Dsn(h:1,/tmp/s:2/d as u)");
    assert_eq!(
        Dsn::parse("postgres://u@[::1]/d").unwrap().identity(),
        "[::1]:5432/d"
    );
    let line = serde_json::to_string(&dsn).unwrap();
    assert_eq!(serde_json::from_str::<Dsn>(&line).unwrap(), dsn);
}

#[test]
fn a_password_in_a_text_is_seen() {
    for text in [
        "password=x",
        "host=h password='x y'",
        "postgres://u:p@h",
        "postgres://h?password=p",
        "sslpassword=x",
    ] {
        assert!(Dsn::password_in_text(text), "{text}");
    }
    for text in [
        "",
        "host=password",
        "postgres://u@h",
        "postgres://u:@h",
        "password=",
    ] {
        assert!(!Dsn::password_in_text(text), "{text}");
    }
}
