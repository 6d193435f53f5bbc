//! HTTPS, the change of its certificate under way, and the orderly end.

use std::path::Path;
use std::time::Duration;

use signaling::Args;
use signaling_protocol::Role;
use signaling_protocol::client::{CertificateFault, Client, ClientError, Credential, Options, Trust};

use crate::stack::{Stack, args, eventually, token};

fn write_certificate(folder: &Path) -> Vec<u8> {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let certificate = pair.cert.pem();
    std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), &certificate).unwrap();
    certificate.into_bytes()
}

async fn secure_stack(folder: &Path) -> Stack {
    let any = Some(([127, 0, 0, 1], 0).into());
    let (tls_cert, tls_key) = (Some(folder.join("cert.pem")), Some(folder.join("key.pem")));
    Stack::with(Args { https: any, tls_cert, tls_key, ..args() }).await
}

async fn connect(stack: &Stack, trust: Trust) -> Result<Client, ClientError> {
    let url = format!("wss://localhost:{}/v1/rooms/demo", stack.server.https_addr().unwrap().port());
    Ok(Client::connect(&url, &Options { trust, ..Options::default() }).await?.0)
}

#[tokio::test]
async fn certificate_is_changed_under_running_connections() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_certificate(folder.path());
    let stack = secure_stack(folder.path()).await;
    let old = connect(&stack, Trust::pin_pem(&first).unwrap()).await.unwrap();
    old.hello(Credential::Token(token("demo", "ada", Role::Speaker)), None).await.unwrap();
    connect(&stack, Trust::Roots(first.clone())).await.unwrap();
    assert!(connect(&stack, Trust::Pinned([7; 32])).await.is_err());

    let second = write_certificate(folder.path());
    eventually("the new certificate is served", async || {
        connect(&stack, Trust::pin_pem(&second).unwrap()).await.is_ok()
    })
    .await;
    assert!(connect(&stack, Trust::pin_pem(&first).unwrap()).await.is_err());
    old.leave().await.unwrap();
}

#[tokio::test]
async fn a_client_is_told_what_is_wrong_with_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let own = write_certificate(folder.path());
    let stack = secure_stack(folder.path()).await;
    let fault = async |host: &str, roots: &[u8]| {
        let url = format!("wss://{host}:{}/v1/rooms/demo", stack.server.https_addr().unwrap().port());
        let options = Options { trust: Trust::Roots(roots.to_vec()), ..Options::default() };
        match Client::connect(&url, &options).await {
            Err(ClientError::Certificate(fault)) => fault,
            other => panic!("{other:?}"),
        }
    };
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap().cert.pem();
    assert_eq!(fault("localhost", other.as_bytes()).await, CertificateFault::Untrusted);
    assert_eq!(fault("127.0.0.1", &own).await, CertificateFault::WrongName);
}

#[tokio::test]
async fn broken_new_certificate_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_certificate(folder.path());
    let stack = secure_stack(folder.path()).await;
    // A key that does not belong to it.
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(folder.path().join("key.pem"), other).unwrap();
    eventually("the failure is counted", async || {
        stack
            .admin("GET", "/metrics", "", "")
            .await
            .contains(r#"signaling_certificate_reloads_total{result="kept_old"} 1"#)
    })
    .await;
    connect(&stack, Trust::pin_pem(&first).unwrap()).await.unwrap();
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let missing = signaling::Config::load(Args { control_token: None, ..args() }).unwrap_err().to_string();
    assert!(missing.contains("--control-token-file, SIGNALING_CONTROL_TOKEN or"), "{missing}");
    for (token, is_accepted) in [
        ("0123456789abcde", false),
        ("0123456789abcdef", true),
        ("0123456789 abcdef", false),
        ("0123456789abcdé", false),
    ] {
        let loaded = signaling::Config::load(Args { control_token: Some(token.into()), ..args() });
        assert_eq!(loaded.is_ok(), is_accepted, "{token}");
        if let Err(error) = loaded {
            let expected = "control_token is ***, must be at least 16 printable ASCII characters without spaces";
            assert_eq!(error.to_string(), expected);
        }
    }
    let short =
        signaling::Config::load(Args { token_keys: vec!["a:short".into()], ..args() }).unwrap_err().to_string();
    assert!(short.contains("32 bytes") && !short.contains("short:"), "{short}");
    let https = Args { https: Some(([127, 0, 0, 1], 0).into()), ..args() };
    assert!(signaling::Config::load(https).unwrap_err().to_string().contains("tls_cert"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signaling.toml");
    std::fs::write(&file, "alow_origin = []\n").unwrap();
    let misspelt = signaling::Config::load(Args { config: Some(file), ..args() }).unwrap_err().to_string();
    assert!(misspelt.contains("allow_origin"), "{misspelt}");
}

#[tokio::test]
async fn end_of_the_process_tells_clients_to_come_back() {
    let stack = Stack::start().await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    let since = tokio::time::Instant::now();
    stack.server.stop().await;
    assert!(ada.client.closed().await.to_string().contains("1001"));
    assert!(since.elapsed() < Duration::from_secs(30));
}
