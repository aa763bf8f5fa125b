//! What fills the gaps of a text: libpq's variables, the service file, the passfile, defaults.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatchbox::store::dsn::Dsn;

use super::{check_env, env_of, resolve};
use crate::support::TestDir;

#[test]
fn the_environment_fills_what_the_text_leaves_open() {
    let env = [
        ("PGHOST", "eh"),
        ("PGPORT", "99"),
        ("PGUSER", "eu"),
        ("PGDATABASE", "ed"),
        ("PGPASSWORD", "ep"),
        ("PGAPPNAME", ""),
    ];
    check_env("", &env, "eh:99 eu@ed ep");
    check_env("host=h password=p", &env, "h:99 eu@ed p");
    check_env("user=u", &env[..2], "eh:99 u@u");
    // As in libpq, a keyword that is set to nothing keeps the variable out.
    check_env("password='' dbname=d", &env, "eh:99 eu@d");
    assert_eq!(
        resolve("", &[("PGPORT", "x")]).unwrap_err(),
        "PGPORT must be a number from 1 to 65535; in a URL, `/` in a password is written %2F, `:` %3A and `@` %40"
    );
}

#[test]
fn without_anything_it_is_the_users_own_database_on_this_host() {
    let dsn = Dsn::parse("").unwrap();
    let config = dsn.to_postgres().unwrap();
    assert_eq!(config.get_user(), config.get_dbname());
    assert!(config.get_user().is_some_and(|user| !user.is_empty()));
    assert_eq!(config.get_hosts().len(), 1);
    assert_eq!(config.get_ports(), [5432]);
}

#[test]
fn a_service_stands_between_text_and_environment() {
    let directory = TestDir::new();
    let path = directory.file("services");
    fs::write(
        &path,
        "# comment\n[other]\nhost=wrong\n\n[mine]\nhost=sh\n user=su \nuser=second\npassword=a=b c\n[mine]\nport=7\n[bad]\nhots=x\n[ldap]\nldap://x\n",
    )
    .unwrap();
    let env = [
        ("PGSERVICEFILE", path.as_str()),
        ("PGUSER", "eu"),
        ("PGDATABASE", "ed"),
    ];

    check_env("service=mine", &env, "sh:5432 su@ed a=b c");
    check_env("service=mine host=h dbname=d", &env, "h:5432 su@d a=b c");
    check_env(
        "",
        &[&env[..], &[("PGSERVICE", "mine")]].concat(),
        "sh:5432 su@ed a=b c",
    );
    assert_eq!(
        resolve("service=none", &env).unwrap_err(),
        "there is no definition of the service `none`"
    );
    assert_eq!(
        resolve("service=bad", &env).unwrap_err(),
        format!("service file `{path}`, line 13: unknown keyword `hots`; did you mean `host`?")
    );
    assert_eq!(
        resolve("service=ldap", &env).unwrap_err(),
        format!("service file `{path}`, line 15: services from LDAP are not supported")
    );
    assert_eq!(
        resolve("service=x servicefile=/nonexistent", &[]).unwrap_err(),
        "could not read the service file `/nonexistent`: No such file or directory (os error 2)"
    );

    fs::rename(&path, directory.file(".pg_service.conf")).unwrap();
    let home = directory.path().display().to_string();
    check_env(
        "service=mine dbname=d",
        &[("HOME", &home)],
        "sh:5432 su@d a=b c",
    );
    fs::rename(
        directory.file(".pg_service.conf"),
        directory.file("pg_service.conf"),
    )
    .unwrap();
    check_env(
        "service=mine dbname=d",
        &[("PGSYSCONFDIR", &home)],
        "sh:5432 su@d a=b c",
    );
}

/// A passfile of this text, and the environment that names it.
fn passfile(directory: &TestDir, text: &str) -> BTreeMap<String, String> {
    let path = directory.file("pass");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    env_of(&[("PGPASSFILE", &path)])
}

#[test]
fn the_passfile_has_the_password_of_the_first_line_that_fits() {
    let directory = TestDir::new();
    let env = passfile(
        &directory,
        "# h:5432:d:u:comment\nh:5432:d:other:wrong\nh:1:d:u:one\n*:*:back\\:slash:u:two\\:\\\\x\nlocalhost:*:*:*:local\n\
         /tmp/s:*:*:u:socket\n*:*:*:u:rest \n",
    );
    let password = |text: &str| {
        let mut warnings = Vec::new();
        let dsn = Dsn::resolve(Some(text), &env, &mut warnings).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        let config = dsn.to_postgres().unwrap();
        config
            .get_password()
            .map(|password| String::from_utf8(password.to_vec()).unwrap())
    };
    let some = |text: &str| Some(text.to_owned());

    assert_eq!(password("host=h port=1 dbname=d user=u"), some("one"));
    assert_eq!(password("host=h dbname=d user=u"), some("rest "));
    assert_eq!(password("host=h dbname=back:slash user=u"), some("two:\\x"));
    assert_eq!(
        password("host=/var/run/postgresql dbname=d user=x"),
        some("local")
    );
    assert_eq!(password("host=/tmp/s dbname=d user=u"), some("socket"));
    assert_eq!(
        password("hostaddr=127.0.0.1 dbname=d user=u"),
        some("rest ")
    );
    assert_eq!(password("host=h dbname=d user=v"), None);
    assert_eq!(password("host=h dbname=d user=u password=own"), some("own"));
}

#[test]
fn a_passfile_that_others_may_read_is_not_used() {
    let directory = TestDir::new();
    let env = passfile(&directory, "*:*:*:*:p\n");
    let path = &env["PGPASSFILE"];
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();

    let mut warnings = Vec::new();
    let dsn = Dsn::resolve(Some("host=h,k user=u"), &env, &mut warnings).unwrap();

    assert_eq!(dsn.to_postgres().unwrap().get_password(), None);
    assert_eq!(
        warnings,
        [format!(
            "the passfile `{path}` is not used: it can be read by others; its permissions should be u=rw (0600) or less"
        )]
    );
}
