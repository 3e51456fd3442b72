//! A store of pictures behind TLS: whose certificate is believed, and what is said when it is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use history::StoreError;
use history::s3::S3;
use history::store::Pictures as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pictures::address;

/// A store that has nothing; its certificate is for `name`.
async fn store_named(name: &str, folder: &TempDir) -> (String, PathBuf) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let file = folder.path().join(format!("{name}.pem"));
    std::fs::write(&file, cert.pem()).expect("written");
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("ring has them");
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not believe it leaves.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = [0; 4_096];
                let _ = stream.read(&mut head).await;
                let _ =
                    stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (format!("https://localhost:{port}"), file)
}

fn open(endpoint: &str, ca: &Path) -> S3 {
    S3::open(&address(endpoint.to_owned(), ca), Duration::from_secs(20)).expect("good settings")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_believed_when_the_file_vouches_for_it_and_its_name_is_right() {
    let folder = TempDir::new().expect("a folder");
    let (right, ca) = store_named("localhost", &folder).await;
    assert_eq!(open(&right, &ca).check().await, Ok(()));
    let (wrong, other) = store_named("pictures.example", &folder).await;
    for (endpoint, ca, says) in [
        (&right, Path::new(""), "UnknownIssuer"),
        (&right, other.as_path(), "invalid peer certificate"),
        (&wrong, other.as_path(), "not valid for name \"localhost\""),
    ] {
        let Err(StoreError::Away { reason, .. }) = open(endpoint, ca).check().await else { panic!("it is believed") };
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn a_file_that_holds_no_certificates_ends_the_start() {
    let folder = TempDir::new().expect("a folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificates").expect("written");
    for (file, says) in
        [(Path::new("/no/such/ca.pem"), "No such file"), (empty.as_path(), "there is no certificate in it")]
    {
        let refused = S3::open(&address("https://localhost:1".to_owned(), file), Duration::from_secs(1));
        let refused = refused.expect_err("nobody could be believed");
        assert!(refused.starts_with("settings: `history.s3.ca`: ") && refused.contains(says), "{refused}");
    }
}
