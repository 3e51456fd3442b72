//! Calls in TTHeader over a real connection, wherever it is cut.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use rpc::{CallContext, CallFuture, Drain, Instead, Refusal, Server, ServerLimits, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::{ApplicationErrorKind, Request};

/// A call of `check`, number 1, of Kitex v0.15.1.
const KITEX: &[u8] = include_bytes!("../../wire/tests/golden/kitex-check.ttheader");
/// The same call without its header.
const FRAMED: &[u8] = b"\0\0\0\x16\x80\x01\0\x01\0\0\0\x05check\0\0\0\x01\x0c\0\x01\0\0";
const PATIENCE: Duration = Duration::from_secs(20);

/// Says what timeout a call came with.
struct Told;

impl Service for Told {
    fn call(&self, request: Request, _: CallContext) -> CallFuture {
        let timeout = request.carried().and_then(|carried| carried.timeout_ms);
        let text = format!("{timeout:?}");
        let reply = request.application_error(ApplicationErrorKind::InternalError, &text);
        let late = request.carried().is_some();
        Box::pin(async move {
            if late {
                // Answered by a later poll, so both ways of an answer are taken.
                tokio::task::yield_now().await;
            }
            Some(reply)
        })
    }

    fn refuse(&self, request: &Request, _: Refusal) -> Instead {
        Instead::Refused(Some(request.application_error(ApplicationErrorKind::InternalError, "refused")))
    }
}

async fn connect(drain: Drain) -> TcpStream {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), ServerLimits::default()).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve(Arc::new(Told), drain));
    TcpStream::connect(address).await.unwrap()
}

async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let reading = async {
        let length = stream.read_u32().await.unwrap() as usize;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer comes")
}

#[tokio::test]
async fn a_connection_may_mix_both_and_is_answered_in_kind_however_it_is_cut() {
    let (_handle, drain) = Drain::new(PATIENCE);
    let stream = [KITEX, FRAMED, KITEX].concat();
    let mut connection = connect(drain).await;
    connection.set_nodelay(true).unwrap();
    for cut in (0..=stream.len()).step_by(7) {
        connection.write_all(&stream[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        connection.write_all(&stream[cut..]).await.unwrap();
        let mut answers = [answer(&mut connection).await, answer(&mut connection).await, answer(&mut connection).await];
        // Equal numbers: in the order of the calls.
        for (answer, in_header) in answers.iter_mut().zip([true, false, true]) {
            let text: &[u8] = if in_header { b"Some(750)" } else { b"None" };
            if in_header {
                assert_eq!(answer[..14], [0x10, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
                answer.drain(..18);
            }
            assert_eq!(answer[..4], [0x80, 1, 0, 3]);
            assert!(answer.windows(text.len()).any(|window| window == text), "{answer:02x?}");
        }
    }
}

#[tokio::test]
async fn a_header_that_lies_ends_its_connection() {
    let (_handle, drain) = Drain::new(PATIENCE);
    let mut frame = KITEX.to_vec();
    // Sixteen times as many words as there are.
    frame[12] = 3;
    let mut connection = connect(drain).await;
    connection.write_all(&frame).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut rest)).await;
    assert!(end.expect("the connection ends").is_ok() && rest.is_empty(), "{rest:02x?}");
}
