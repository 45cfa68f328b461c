//! An engine that behaves as a test wants, on the level of TCP.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use super::client::PORT;

/// Behaviour of an engine towards each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with the request's `id`.
    Answers,
    /// Streams the `id` in two events with this pause between them.
    Streams(Duration),
    /// Ends the connection after it has read the request.
    Dies,
    /// Ends the connection after the first event.
    DiesInStream,
    /// Refuses the request with status 400.
    Refuses,
    /// Streams without an end, as fast as the other side reads.
    Floods,
}

/// A running engine.
pub struct Engine {
    pub address: IpAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    ids: Mutex<Vec<String>>,
    heads: Mutex<Vec<String>>,
    written: AtomicUsize,
    is_cut: AtomicBool,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Engine {
    pub async fn start(address: IpAddr, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((address, PORT)).await.expect("the engine's address");
        let shared = Arc::<Shared>::default();
        let served = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, behaviour, served.clone()));
            }
        });
        Self { address, shared, listening }
    }

    /// The `id` of every request so far, sorted.
    pub fn ids(&self) -> Vec<String> {
        let mut ids = self.shared.ids.lock().unwrap().clone();
        ids.sort();
        ids
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Bytes that it could write so far.
    pub fn written(&self) -> usize {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// `true` once the other side has ended a connection before the end of a response.
    pub fn is_cut(&self) -> bool {
        self.shared.is_cut.load(Ordering::Relaxed)
    }
}

/// Reads one request; returns its head and body.
async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if body.len() == length.parse::<usize>().ok()? {
            return Some((head.to_owned(), serde_json::from_str(body).ok()?));
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour, shared: Arc<Shared>) {
    let Some((head, body)) = read(&mut stream).await else { return };
    let id = body["id"].as_str().unwrap_or_default().to_owned();
    shared.heads.lock().unwrap().push(head);
    shared.ids.lock().unwrap().push(id.clone());
    let _ = respond(&mut stream, behaviour, &id, &shared).await;
}

async fn respond(
    stream: &mut TcpStream,
    behaviour: Behaviour,
    id: &str,
    shared: &Shared,
) -> std::io::Result<()> {
    let full = |status: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{id:?}",
            id.len() + 2
        )
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = chunk(&format!("data: {id}\n\n"));
    match behaviour {
        Behaviour::Answers => stream.write_all(full("200 OK").as_bytes()).await,
        Behaviour::Refuses => stream.write_all(full("400 Bad Request").as_bytes()).await,
        Behaviour::Dies => Ok(()),
        Behaviour::DiesInStream => {
            stream.write_all(format!("{head}{event}").as_bytes()).await?;
            sleep(Duration::from_millis(100)).await;
            Ok(())
        }
        Behaviour::Streams(pause) => {
            stream.write_all(format!("{head}{event}").as_bytes()).await?;
            // A client that leaves ends the connection, which a read sees.
            tokio::select! {
                () = sleep(pause) => stream.write_all(format!("{event}0\r\n\r\n").as_bytes()).await,
                _ = stream.read_u8() => {
                    shared.is_cut.store(true, Ordering::Relaxed);
                    Ok(())
                }
            }
        }
        Behaviour::Floods => {
            stream.write_all(head.as_bytes()).await?;
            let piece = chunk(&"x".repeat(16 << 10));
            loop {
                stream.write_all(piece.as_bytes()).await?;
                shared.written.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
    }
}
