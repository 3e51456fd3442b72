//! `outboard models pull`, from a server laid out as the hub is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{Ended, outboard, refused};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub holds and how it behaves.
struct Hub {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Large files are told with this sum instead of their own.
    wrong_sum: bool,
    /// This small file comes with other bytes than are listed.
    changed: Option<&'static str>,
    /// This file is listed without a sum.
    no_sum: Option<&'static str>,
    /// So many bodies of large files end in the middle.
    cuts: usize,
    token: Option<&'static str>,
    /// The commit that the branch is at.
    commit: String,
    /// What `ETag` and `X-Repo-Commit` say instead of the truth.
    told: Option<(String, &'static str)>,
    /// This file is listed, and cannot be had.
    gone: Option<&'static str>,
    /// The host that large files are at; this one when there is none.
    store: Option<String>,
    /// Paths and ranges, in order.
    seen: Vec<(String, String)>,
    /// Requests that came with a token.
    with_token: usize,
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Git's name for a file.
fn blob(bytes: &[u8]) -> String {
    let hash = Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    fn new() -> Self {
        let config = json!({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}).to_string();
        let files = [
            (".gitattributes", b"x".to_vec()),
            ("README.md", b"# A model".to_vec()),
            ("config.json", config.into_bytes()),
            ("tokenizer.json", b"{}".to_vec()),
            ("onnx/model.onnx", vec![1; 300_000]),
            ("onnx/model_q4.onnx", vec![4; 200_000]),
            ("onnx/model_q4.onnx_data", vec![5; 400_000]),
            ("onnx/model_fp16.onnx", vec![6; 100_000]),
            // It would clear the terminal of who is told which variants there are.
            ("onnx/model_\u{1b}[2J.onnx", vec![6; 100]),
            ("../outside.json", b"{}".to_vec()),
            ("pytorch_model.bin", vec![7; 1000]),
        ];
        Self {
            files: files.into(),
            wrong_sum: false,
            changed: None,
            no_sum: None,
            cuts: 0,
            token: None,
            commit: COMMIT.to_owned(),
            told: None,
            gone: None,
            store: None,
            seen: Vec::new(),
            with_token: 0,
        }
    }

    fn start(self) -> (String, Arc<Mutex<Self>>) {
        self.start_at("127.0.0.1:0")
    }

    fn start_at(self, address: &str) -> (String, Arc<Mutex<Self>>) {
        let listener = TcpListener::bind(address).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = Arc::new(Mutex::new(self));
        let shared = Arc::clone(&hub);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let hub = Arc::clone(&shared);
                std::thread::spawn(move || answer(&hub, stream));
            }
        });
        (address, hub)
    }

    fn is_large(path: &str) -> bool {
        path.contains(".onnx")
    }
}

/// One request on one connection.
fn answer(hub: &Mutex<Hub>, mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
    };
    let range = header("range").map(|(_, value)| value.to_owned()).unwrap_or_default();
    let mut hub = hub.lock().unwrap();
    let allowed =
        hub.token.is_none_or(|token| header("authorization").is_some_and(|(_, value)| value.ends_with(token)));
    hub.seen.push((path.clone(), range.clone()));
    hub.with_token += usize::from(header("authorization").is_some());
    let told = hub.told.as_ref().map_or(hub.commit.clone(), |(_, commit)| (*commit).to_owned());
    let head = |status: &str, more: &str, length: usize| {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nX-Repo-Commit: {told}\r\n{more}Content-Length: {length}\r\n\r\n"
        )
    };
    let send = |mut stream: &TcpStream, head: String, body: &[u8]| {
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if !allowed {
        send(&stream, head("401 Unauthorized", "", 0), b"");
        return None;
    }
    if path == "/api/models/owner/Some-Model/revision/main?blobs=true" {
        let listed = |(name, bytes): (&&str, &Vec<u8>)| {
            let mut file = json!({"rfilename": name, "size": bytes.len()});
            if hub.no_sum == Some(*name) {
                return file;
            }
            // Of a large file this is the name of the pointer to it.
            file["blobId"] = json!(blob(if Hub::is_large(name) { b"pointer" } else { bytes }));
            if Hub::is_large(name) {
                file["lfs"] = json!({"sha256": if hub.wrong_sum { sum(b"") } else { sum(bytes) }, "size": bytes.len()});
            }
            file
        };
        let body = json!({"sha": hub.commit, "siblings": hub.files.iter().map(listed).collect::<Vec<_>>()}).to_string();
        send(&stream, head("200 OK", "Content-Type: application/json\r\n", body.len()), body.as_bytes());
        return None;
    }
    let resolved = path.strip_prefix(&format!("/owner/Some-Model/resolve/{}/", hub.commit));
    let name = resolved.or_else(|| path.strip_prefix("/store/")).map(str::to_owned).unwrap_or_default();
    let there = hub.files.get(name.as_str()).filter(|_| hub.gone != Some(name.as_str()));
    let Some(mut bytes) = there.cloned() else {
        send(&stream, head("404 Not Found", "", 0), b"");
        return None;
    };
    if resolved.is_some() && Hub::is_large(&name) {
        let more = format!(
            "X-Linked-Etag: \"{}\"\r\nLocation: {}/store/{name}\r\n",
            sum(&bytes),
            hub.store.clone().unwrap_or(format!("http://{}", stream.local_addr().ok()?))
        );
        send(&stream, head("302 Found", &more, 0), b"");
        return None;
    }
    if hub.changed == Some(name.as_str()) {
        bytes[0] ^= 1;
    }
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = to.parse().map_or(bytes.len(), |last: usize| last + 1);
    let body = &bytes[from..to];
    let etag = hub.told.as_ref().map_or(sum(&bytes)[..40].to_owned(), |(etag, _)| etag.clone());
    let more = format!("ETag: \"{etag}\"\r\nContent-Range: bytes {from}-{}/{}\r\n", to.max(1) - 1, bytes.len());
    let head = head("206 Partial Content", &more, body.len());
    if Hub::is_large(&name) && body.len() > 1 && hub.cuts > 0 {
        hub.cuts -= 1;
        send(&stream, head, &body[..body.len() / 2]);
        let _ = stream.flush();
        return None;
    }
    send(&stream, head, body);
    Some(())
}

fn pull(endpoint: &str, into: &Path, arguments: &[&str], token: Option<&str>) -> Ended {
    let into = into.to_str().unwrap();
    pull_anywhere(endpoint, Path::new(into), &[arguments, &["--into", into]].concat(), token)
}

/// Into the cache folder `cache`, unless the arguments say otherwise.
fn pull_anywhere(endpoint: &str, cache: &Path, arguments: &[&str], token: Option<&str>) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboard"));
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "HF_TOKEN"] {
        command.env_remove(name);
    }
    command
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", cache.join("no-home"))
        .env("OUTBOARD_CACHE", cache)
        .envs(token.map(|token| ("HF_TOKEN", token)));
    command.args(["models", "pull"]).args(arguments);
    let Output { status, stdout, stderr } = command.output().expect("outboard starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: status.code(), out: text(stdout), err: text(stderr) }
}

/// Every file of the folder with its size.
fn files(folder: &Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                all.push((name, path.symlink_metadata().unwrap().len()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn the_plain_graph_and_what_describes_it_become_a_folder() {
    let (endpoint, _hub) = Hub::new().start();
    let into = TempDir::new().unwrap();
    let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
    assert!(ended.out.contains("4 files") && ended.out.contains(COMMIT), "{}", ended.out);
    let expected = ["README.md", "config.json", "onnx/model.onnx", "tokenizer.json"];
    let found = files(&into.path().join("some-model"));
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
    assert_eq!(std::fs::read(into.path().join("some-model/onnx/model.onnx")).unwrap(), vec![1; 300_000]);
    let left: Vec<_> = std::fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["some-model"], "nothing else is left");
    let again = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    assert!(again.err.contains("is there already"), "{}", again.err);
}

#[test]
fn what_was_fetched_can_be_served() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../generate/testdata/tiny-llama");
    let read = |name: &str| std::fs::read(tiny.join(name)).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["architectures"] = json!(["LlamaForCausalLM"]);
    let rest = ["tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "onnx/model.onnx_data"];
    let files =
        rest.map(|name| (name, read(name))).into_iter().chain([("config.json", config.to_string().into_bytes())]);
    let (endpoint, _hub) = Hub { files: files.collect(), ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
    assert!(ended.out.contains("next start"), "{}", ended.out);
    let ended = outboard(&["models", "check", into.path().to_str().unwrap()]).with(0);
    assert!(ended.out.contains("some-model version 1 (chat)"), "{}", ended.out);
}

#[test]
fn a_variant_comes_with_its_weights_under_the_plain_name() {
    let (endpoint, _hub) = Hub::new().start();
    let into = TempDir::new().unwrap();
    pull_anywhere(&endpoint, into.path(), &["owner/Some-Model", "--variant", "q4", "--name", "mine"], None).with(0);
    let found = files(&into.path().join("models/mine/onnx"));
    assert_eq!(found, [("model.onnx".to_owned(), 200_000), ("model_q4.onnx_data".to_owned(), 400_000)]);
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let (endpoint, hub) = Hub { cuts: 1, ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
    let ranges = |hub: &Mutex<Hub>| -> Vec<String> {
        let seen = &hub.lock().unwrap().seen;
        let bodies = seen.iter().filter(|(path, range)| path.starts_with("/store/") && range != "bytes=0-0");
        bodies.map(|(_, range)| range.clone()).collect()
    };
    assert_eq!(ranges(&hub), ["bytes=0-", "bytes=150000-"]);
    assert_eq!(std::fs::read(into.path().join("some-model/onnx/model.onnx")).unwrap(), vec![1; 300_000]);
    // Over and over, until the command gives up; the next one goes on as well.
    let (endpoint, hub) = Hub { cuts: 4, ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(3);
    assert!(ended.err.contains("onnx/model.onnx"), "{}", ended.err);
    assert!(!into.path().join("some-model").exists(), "half a model is none");
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
    assert_eq!(ranges(&hub), ["bytes=0-", "bytes=150000-", "bytes=225000-", "bytes=262500-", "bytes=281250-"]);
    let small = hub
        .lock()
        .unwrap()
        .seen
        .iter()
        .filter(|(path, range)| path.ends_with("config.json") && range == "bytes=0-")
        .count();
    assert_eq!(small, 1, "what was whole is not fetched again");
}

#[test]
fn a_wrong_checksum_is_refused_and_nothing_is_served() {
    let (endpoint, hub) = Hub { wrong_sum: true, ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    assert!(ended.err.contains("onnx/model.onnx has the SHA-256") && ended.err.contains(&sum(b"")), "{}", ended.err);
    assert!(!into.path().join("some-model").exists());
    hub.lock().unwrap().wrong_sum = false;
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
}

#[test]
fn a_small_file_that_was_changed_on_its_way_is_refused() {
    let (endpoint, hub) = Hub { changed: Some("tokenizer.json"), ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    // What `git hash-object` says of the file.
    let says = "the hub says 9e26dfeeb6e641a33dae4961196235bdb965b21b; it was thrown away";
    assert!(ended.err.contains("tokenizer.json has the git SHA-1") && ended.err.contains(says), "{}", ended.err);
    assert!(!into.path().join("some-model").exists());
    hub.lock().unwrap().changed = None;
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
}

#[test]
fn a_file_without_a_sum_is_not_taken() {
    for name in ["config.json", "onnx/model.onnx"] {
        let (endpoint, hub) = Hub { no_sum: Some(name), ..Hub::new() }.start();
        let into = TempDir::new().unwrap();
        let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
        assert!(ended.err.contains(&format!("no checksum for {name}")), "{}", ended.err);
        assert_eq!(hub.lock().unwrap().seen.len(), 1, "nothing is fetched");
    }
}

#[test]
fn of_a_pull_that_brought_nothing_nothing_stays() {
    let (endpoint, hub) = Hub { gone: Some("README.md"), ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);
    // As soon as there is something to go on from it stays.
    hub.lock().unwrap().gone = Some("tokenizer.json");
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    assert!(into.path().join(".pull-some-model/model/config.json").is_file());
}

#[test]
fn what_is_not_there_is_named() {
    let (endpoint, _hub) = Hub::new().start();
    let into = TempDir::new().unwrap();
    let try_for = |arguments: &[&str], status| pull(&endpoint, into.path(), arguments, None).with(status).err;
    let unknown = try_for(&["owner/Nothing"], 1);
    assert!(unknown.contains("no repository owner/Nothing at main on http://127"), "{unknown}");
    let variant = try_for(&["owner/Some-Model", "--variant", "q9"], 1);
    assert!(variant.contains("no variant q9, it has the plain one and --variant fp16, q4"), "{variant}");
    for wrong in ["nameless", "a/b/c", "../x", "owner/", "owner/Some-Model?x"] {
        assert!(try_for(&[wrong], 2).contains("expected OWNER/NAME"), "{wrong}");
    }
    try_for(&["owner/Some-Model", "--name", "../up"], 2);
    let ended = pull(&format!("http://{}", refused()), into.path(), &["owner/Some-Model"], None).with(3);
    assert!(!ended.err.is_empty());
    let (bare, _hub) = Hub { files: [("config.json", b"{}".to_vec())].into(), ..Hub::new() }.start();
    let ended = pull(&bare, into.path(), &["owner/Some-Model"], None).with(1);
    assert!(ended.err.contains("no export for ONNX Runtime"), "{}", ended.err);
}

#[test]
fn the_token_of_the_environment_opens_what_is_not_public() {
    let (endpoint, _hub) = Hub { token: Some("secret"), ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    let ended = pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    assert!(ended.err.contains("HF_TOKEN"), "{}", ended.err);
    pull(&endpoint, into.path(), &["owner/Some-Model"], Some("secret")).with(0);
}

#[test]
fn nothing_that_a_hub_says_leads_out_of_the_folder() {
    let outside = TempDir::new().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for (etag, commit) in [(victim.to_str().unwrap(), COMMIT), ("0123", "../../../../outside")] {
        let (endpoint, _hub) = Hub { told: Some((etag.to_owned(), commit)), ..Hub::new() }.start();
        let into = outside.path().join("into");
        pull(&endpoint, &into, &["owner/Some-Model"], None).with(0);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        let left = |folder: &Path| {
            let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(left(outside.path()), ["into", "victim"].map(str::to_owned).into());
        assert_eq!(left(&into), ["some-model".to_owned()].into());
        std::fs::remove_dir_all(into).unwrap();
    }
    for commit in ["../../outside", "main", ""] {
        let (endpoint, _hub) = Hub { commit: commit.to_owned(), ..Hub::new() }.start();
        let ended = pull(&endpoint, outside.path(), &["owner/Some-Model"], None).with(1);
        assert!(ended.err.contains("is no commit"), "{}", ended.err);
    }
}

#[test]
fn what_was_fetched_of_something_else_is_not_gone_on_with() {
    let mut first = Hub { gone: Some("tokenizer.json"), ..Hub::new() };
    first.files.insert("extra.json", b"{}".to_vec());
    first.files.insert("onnx/model.onnx_data", vec![2; 1000]);
    let (endpoint, hub) = first.start();
    let into = TempDir::new().unwrap();
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    // The branch moves on.
    let config = {
        let mut hub = hub.lock().unwrap();
        hub.commit = COMMIT.replace('0', "f");
        hub.gone = None;
        hub.files.remove("extra.json");
        let config = hub.files.get_mut("config.json").unwrap();
        *config = String::from_utf8(config.clone()).unwrap().replace("64", "32").into_bytes();
        config.clone()
    };
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(0);
    let found = into.path().join("some-model");
    assert_eq!(std::fs::read(found.join("config.json")).unwrap(), config);
    assert!(!found.join("extra.json").exists());
    // Another variant under the same name.
    std::fs::remove_dir_all(&found).unwrap();
    hub.lock().unwrap().gone = Some("tokenizer.json");
    pull(&endpoint, into.path(), &["owner/Some-Model"], None).with(1);
    hub.lock().unwrap().gone = None;
    pull(&endpoint, into.path(), &["owner/Some-Model", "--variant", "q4"], None).with(0);
    assert_eq!(
        files(&found.join("onnx")),
        [("model.onnx".to_owned(), 200_000), ("model_q4.onnx_data".to_owned(), 400_000)]
    );
}

#[test]
fn the_token_stays_with_the_hub() {
    let (store, other) = Hub::new().start_at("127.0.0.2:0");
    let (endpoint, hub) = Hub { token: Some("secret"), store: Some(store), ..Hub::new() }.start();
    let into = TempDir::new().unwrap();
    pull(&endpoint, into.path(), &["owner/Some-Model"], Some("secret")).with(0);
    assert!(hub.lock().unwrap().with_token > 0);
    let other = other.lock().unwrap();
    assert!(!other.seen.is_empty(), "the large files are there");
    assert_eq!(other.with_token, 0);
}
