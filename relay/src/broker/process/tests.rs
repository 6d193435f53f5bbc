use std::path::Path;

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn args(secrets: &Path) -> Args {
    let secrets = secrets.to_str().unwrap();
    Args::parse_from([
        "credential-broker",
        "--dev",
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--api-key",
        "a:key",
        "--relay",
        "turns:relay.example",
        "--secret-file",
        secrets,
    ])
}

#[tokio::test]
async fn a_changed_file_is_loaded_and_a_broken_one_is_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first").unwrap();
    let args = args(file.path());
    let config = Config::load(&args).unwrap();
    let mut files = Files::look(&config.files);
    let broker = Broker::start(config).await.unwrap();
    let ids = || broker.desk.live().policy.minter.secret_ids().to_vec();
    let first = ids();
    assert!(!files.has_changed());

    std::fs::write(file.path(), "second\nfirst\n").unwrap();
    assert!(files.has_changed());
    broker.reload(&args, &mut files);
    let second = ids();
    assert_eq!((second.len(), &second[1]), (2, &first[0]));
    assert!(!files.has_changed());

    std::fs::write(file.path(), "").unwrap();
    assert!(files.has_changed());
    broker.reload(&args, &mut files);
    assert_eq!(ids(), second, "the old ones stay");
    assert!(!files.has_changed(), "it is tried again when it changes");
    let metrics = get(broker.admin_addr(), "/metrics").await;
    for series in ["broker_reloads_total{result=\"ok\"} 1", "broker_reloads_total{result=\"failed\"} 1"] {
        assert!(metrics.contains(series), "{metrics}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn both_ports_serve() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret").unwrap();
    let broker = Broker::start(Config::load(&args(file.path())).unwrap()).await.unwrap();
    let classic = get(broker.http_addr(), "/turn?key=key").await;
    assert!(classic.starts_with("HTTP/1.1 200") && classic.contains("cache-control: no-store"), "{classic}");
    assert!(classic.contains(r#""uris":["turns:relay.example?transport=tcp"]"#), "{classic}");
    assert!(get(broker.admin_addr(), "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(broker.admin_addr(), "/metrics").await.contains("broker_relays{state=\"good\"} 1"));
    broker.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for flag in ["--http", "--admin"] {
        let mut args = args(file.path());
        *if flag == "--http" { &mut args.http } else { &mut args.admin } = Some(taken.local_addr().unwrap());
        let text = Broker::start(Config::load(&args).unwrap()).await.unwrap_err().to_string();
        assert!(
            text.contains("Address already in use") && text.contains(&format!("choose another by {flag} (key")),
            "{text}"
        );
    }
}
