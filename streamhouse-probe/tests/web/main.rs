//! Who is let in, over real connections: TLS, client certificates, names and passwords, and files that change.

mod files;
mod served;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use files::{Files, USERS};
use served::{Served, basic};
use streamhouse_probe::web::Web;

/// Waits until an answer has a status.
async fn await_status(status: &str, mut ask: impl AsyncFnMut() -> std::io::Result<String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask().await;
        if answer.as_ref().is_ok_and(|answer| answer.starts_with(status)) {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn users_are_let_in_over_tls_and_nobody_else() {
    let files = Files::new();
    files.write_config(&format!("{}{USERS}", files.tls("")));
    let served = Served::start(&files).await;
    let client = files.client(None);
    let ask = async |authorization: Option<String>| served.get(&client, authorization.as_deref()).await;
    let answer = ask(Some(basic("ann", "secret"))).await.expect("let in");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("streamhouse_probe_scrapes_total"),
        "{answer}"
    );
    for refused in
        [None, Some(basic("ann", "wrong")), Some(basic("eve", "secret")), Some("Basic !".to_owned())]
    {
        let answer = ask(refused.clone()).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 401"), "{refused:?}: {answer}");
        assert!(
            answer.to_lowercase().contains("www-authenticate: basic")
                && !answer.contains("streamhouse_probe_")
        );
    }
    let plain = served.get_plain().await;
    assert!(!plain.contains("200 OK"), "{plain}");
}

#[tokio::test]
async fn the_commands_are_let_in_like_any_client() {
    let files = Files::new();
    files.write_config(&format!("{}{USERS}", files.tls("")));
    let served = Served::start(&files).await;
    let password = files.config().with_file_name("password");
    std::fs::write(&password, "secret\n").expect("written");
    let authority = files.config().with_file_name("ca.pem");
    let run = async |arguments: &[&str], user: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamhouse-probe"));
        command.args(arguments).arg("--url").arg(served.url()).arg("--ca-file").arg(&authority);
        if user {
            command.args(["--user", "ann", "--password-file"]).arg(&password);
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        let Output { status, stdout, stderr } = output.expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (status.success(), text(stdout), text(stderr))
    };
    let (ok, listed, error) = run(&["list"], true).await;
    assert!(ok && listed.contains("no running process"), "{listed}{error}");
    let (ok, targets, error) = run(&["list", "--json"], true).await;
    assert!(ok && targets.contains("\"targets\": []"), "{targets}{error}");
    let (ok, view, error) = run(&["top", "--json", "--count", "2", "--interval", "50ms"], true).await;
    assert!(
        ok && view.lines().filter(|line| line.starts_with("{\"seconds\":")).count() == 2,
        "{view}{error}"
    );
    let (ok, _, error) = run(&["top", "--once"], false).await;
    assert!(!ok && error.contains("--password-file"), "{error}");
}

#[tokio::test]
async fn each_response_has_the_headers() {
    let files = Files::new();
    files.write_config("http_server_config: {headers: {X-Frame-Options: deny}}\n");
    let served = Served::start(&files).await;
    let answer = served.get_plain().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-frame-options: deny"), "{answer}");
}

#[tokio::test]
async fn clients_show_certificates_where_that_is_required() {
    let files = Files::new();
    files.write_config(&files.tls("client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"));
    let served = Served::start(&files).await;
    let shown = served.get(&files.client(Some("client")), None).await.expect("let in");
    assert!(shown.starts_with("HTTP/1.1 200"), "{shown}");
    let none = served.get(&files.client(None), None).await;
    assert!(none.as_ref().map_or(true, |answer| answer.is_empty()), "{none:?}");
    let foreign = served.get(&files.client(Some("foreign")), None).await;
    assert!(foreign.as_ref().map_or(true, |answer| answer.is_empty()), "{foreign:?}");
}

#[tokio::test]
async fn changes_are_in_force_without_a_restart_and_mistakes_are_not() {
    let files = Files::new();
    files.write_config(&format!("{}{USERS}", files.tls("")));
    let served = Served::start(&files).await;
    let ann = basic("ann", "secret");
    await_status("HTTP/1.1 200", async || served.get(&files.client(None), Some(&ann)).await).await;
    files.write_config(&format!("{}basic_auth_users: {{bob: {}}}\n", files.tls(""), files::hash("other")));
    await_status("HTTP/1.1 401", async || served.get(&files.client(None), Some(&ann)).await).await;
    let bob = basic("bob", "other");
    await_status("HTTP/1.1 200", async || served.get(&files.client(None), Some(&bob)).await).await;
    // A new certificate, of another authority, and then a configuration that cannot be read.
    files.renew();
    await_status("HTTP/1.1 200", async || served.get(&files.client(None), Some(&bob)).await).await;
    files.write_config("tls_server_config: {cert_file: gone.pem, key_file: gone.key}\n");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let answer = served.get(&files.client(None), Some(&bob)).await.expect("the version before is in force");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_opens_nothing() {
    let files = Files::new();
    let whole = format!("{}{USERS}", files.tls(""));
    files.write_config(&whole);
    let web = Web::load(&files.config()).expect("loaded");
    let mut watch = std::pin::pin!(web.watch());
    let mut pass = async |seconds| {
        let time = Duration::from_secs(seconds);
        tokio::time::timeout(time, watch.as_mut()).await.expect_err("it watches for ever");
    };
    // It looks every two seconds: in the middle of each wait from now on.
    pass(1).await;
    for so_far in ["", &files.tls(""), "#"] {
        files.write_config(so_far);
        pass(2).await;
        assert!(web.is_guarded(), "{so_far:?} is taken at once");
    }
    files.write_config(&whole);
    pass(2).await;
    pass(2).await;
    assert!(web.is_guarded());
    files.write_config("");
    pass(2).await;
    pass(2).await;
    assert!(!web.is_guarded(), "what stays is meant");
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let files = Files::new();
    let error = |config: &str| {
        files.write_config(config);
        Web::load(&files.config()).expect_err(config).to_string()
    };
    for (config, said) in [
        ("tls_server_config: {cert_file: gone.pem, key_file: server.key}\n".to_owned(), "gone.pem"),
        ("tls_server_config: {cert_file: server.pem, key_file: gone.key}\n".to_owned(), "gone.key"),
        (
            "tls_server_config: {cert_file: server.key, key_file: server.key}\n".to_owned(),
            "no PEM certificate",
        ),
        (
            "tls_server_config: {cert_file: server.pem, key_file: foreign.key}\n".to_owned(),
            "certificate and key",
        ),
        (files.tls("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"), "TLS_RSA_WITH_RC4_128_SHA"),
        (files.tls("client_auth_type: VerifyClientCertIfGiven, client_ca_file: gone.pem"), "client_ca_file"),
        ("nonsense: 1\n".to_owned(), "nonsense"),
    ] {
        let error = error(&config);
        assert!(error.contains(said) && error.contains("web.yml"), "{config}: {error}");
    }
    let gone = Web::load(&files.config().with_file_name("gone.yml")).expect_err("gone").to_string();
    assert!(gone.contains("gone.yml") && gone.contains("--web.config.file"), "{gone}");
    files.write_config(
        &files.tls("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], max_version: TLS12"),
    );
    assert!(Web::load(&files.config()).is_ok_and(|web| web.is_encrypted() && !web.is_guarded()));
}
