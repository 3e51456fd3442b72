//! What was answered is kept: the pages and the API that show, correct and delete it, and who may.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use keys::Scope;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, ask, connect, form, get, request, wait_until};
use crate::gateway::Gateway;
use crate::keys::{FORM, Guarded, JSON};
use crate::server::FakeServer;

const KEEP: &str = "/v1/classify?model=good&keep=true";
const PNG: (&str, &str) = ("content-type", "image/png");
const FOREIGN: (&str, &str) = ("origin", "http://evil.example");

/// A gateway that keeps what it answers.
struct Keeping {
    gateway: Gateway,
    folder: TempDir,
    server: FakeServer,
}

impl Keeping {
    fn start(settings: &[&str]) -> Self {
        let (server, folder) = (FakeServer::start(), TempDir::new().expect("a folder"));
        let gateway = launch(&server, folder.path(), settings);
        Self { gateway, folder, server }
    }

    fn get(&self, path: &str) -> Answer {
        get(&self.gateway.address, path)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(&self.gateway.address, method, path, headers, body)
    }

    /// Keeps a picture; the record's id, which the list has by the time that this returns.
    fn keep(&self) -> String {
        let id = acknowledged(&self.ask("POST", KEEP, &[PNG], b"a picture"));
        wait_until("the record", || (self.get(&format!("/v1/history/{id}")).status == 200).then_some(()));
        id
    }

    fn upload(&self, name: &str, model: &str) -> Answer {
        let (kind, body) = form(&[("model", None, model.as_bytes()), ("image", Some(name), b"a picture")]);
        self.ask("POST", "/upload", &[("content-type", &kind)], &body)
    }

    /// The list, once it has so many records.
    fn listed(&self, count: usize) -> Vec<Value> {
        wait_until("the records in the list", || {
            let page = self.get("/v1/history?limit=200").json();
            page["data"].as_array().filter(|records| records.len() == count).cloned()
        })
    }
}

fn launch(server: &FakeServer, folder: &Path, settings: &[&str]) -> Gateway {
    let place = format!("history.folder={}", folder.display());
    let ours = ["history.store=sqlite", &place];
    Gateway::start(&server.address.to_string(), &[&ours, settings].concat())
}

/// The id of an answer that promises that it is kept.
fn acknowledged(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let kept = &answer.json()["kept"];
    assert_eq!(kept["acknowledged"], true, "{}", answer.text());
    kept["ids"][0].as_str().expect("an id").to_owned()
}

/// What follows `before` up to `after`, at each place.
fn all_between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split_once(after)).map(|(inside, _)| inside).collect()
}

fn count(answer: &Answer) -> usize {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].as_array().map(Vec::len).expect("a list")
}

#[test]
fn the_page_shows_the_newest_goes_on_to_the_older_and_filters() {
    let keeping = Keeping::start(&[]);
    assert!(keeping.get("/history").text().contains("Nothing was kept yet."));
    for _ in 0..26 {
        assert_eq!(keeping.upload("shoe.png", "good").status, 200);
    }
    let ids: Vec<String> =
        keeping.listed(26).iter().map(|record| record["id"].as_str().expect("an id").to_owned()).collect();
    let shown = |page: &str| -> Vec<String> {
        all_between(page, "<a href=\"/history/", "\" data-record>").into_iter().map(str::to_owned).collect()
    };
    let first = keeping.get("/history").text();
    assert_eq!(shown(&first), ids[..24]);
    assert!(first.contains("label &lt;0&gt;") && !first.contains("label <0>"), "what a model says is no markup");
    assert!(!first.contains("Newest of all"));
    let [older] = all_between(&first, "<a rel=\"next\" href=\"", "\"")[..] else { panic!("one way on: {first}") };
    let second = keeping.get(&older.replace("&amp;", "&")).text();
    assert_eq!(shown(&second), ids[24..]);
    assert!(second.contains("Newest of all") && !second.contains("rel=\"next\""), "{second}");

    let today = keeping.listed(26)[0]["time"].as_str().expect("a time")[..10].to_owned();
    for (filter, found) in [
        ("model=good".to_owned(), 24),
        ("label=label+%3C0%3E".to_owned(), 24),
        (format!("model=good&label=label+%3C0%3E&day={today}&cursor="), 24),
        ("model=other".to_owned(), 0),
        ("label=label+%3C1%3E".to_owned(), 0),
        ("day=1999-12-31".to_owned(), 0),
    ] {
        let page = keeping.get(&format!("/history?{filter}"));
        assert_eq!((page.status, shown(&page.text()).len()), (200, found), "{filter}");
        assert_eq!(page.text().contains("Nothing that was kept fits."), found == 0, "{filter}");
        assert_eq!(count(&keeping.get(&format!("/v1/history?limit=24&{filter}"))), found, "{filter}");
    }
    // The filter stays in the form, and cannot leave it.
    let odd = keeping.get("/history?label=%22%3E%3Cscript%3E").text();
    assert!(odd.contains("value=\"&quot;&gt;&lt;script&gt;\"") && !odd.contains("<script>"), "{odd}");
}

#[test]
fn cursors_lead_through_everything_once_whatever_comes_and_goes_meanwhile() {
    let keeping = Keeping::start(&[]);
    for _ in 0..7 {
        keeping.keep();
    }
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = keeping.get(&format!("/v1/history?limit=2&cursor={cursor}")).json();
        let ids = page["data"].as_array().expect("a list").iter();
        found.extend(ids.map(|record| record["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = next.to_owned();
        // Newer ones do not move the rest, and a cursor whose record is gone is one all the same.
        keeping.keep();
        assert_eq!(keeping.ask("DELETE", &format!("/v1/history/{cursor}"), &[], b"").status, 204);
    }
    let mut sorted = found.clone();
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    sorted.dedup();
    assert_eq!((found.len(), &found), (7, &sorted), "each once, the newest first");
    for (wrong, param) in
        [("cursor=x", "cursor"), ("limit=0", "limit"), ("limit=201", "limit"), ("day=2026-02-30", "day")]
    {
        let refused = keeping.get(&format!("/v1/history?{wrong}"));
        assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some(param)), "{wrong}");
    }
    for wrong in ["cursor=x", "day=yesterday"] {
        let page = keeping.get(&format!("/history?{wrong}"));
        assert!(page.status == 400 && page.text().contains("Back to the form"), "{wrong}: a page for people");
    }
    assert_eq!(keeping.get("/v1/history?modle=good").status, 400, "a slip is no filter that lets everything through");
}

#[test]
fn a_person_without_javascript_corrects_and_deletes_by_forms() {
    let keeping = Keeping::start(&[]);
    let id = keeping.keep();
    let (record, delete) = (format!("/history/{id}"), format!("/history/{id}/delete"));
    let page = keeping.get(&record);
    let actions = page.text();
    assert_eq!(
        all_between(&actions, "<form class=\"card\" action=\"", "\" method=\"post\""),
        [format!("{record}/correct")]
    );
    let send = |body: &[u8]| keeping.ask("POST", &format!("{record}/correct"), &[FORM], body);

    let noted = send("label=+Sandal+%3Cb%3E+%E9%9D%B4+".as_bytes());
    assert_eq!((noted.status, noted.header("location")), (303, Some(record.as_str())), "{}", noted.text());
    // Apart from what stands beside it, whichever way its letters run.
    for page in [&record, "/history"] {
        assert!(keeping.get(page).text().contains("really: <bdi>Sandal &lt;b&gt; 靴</bdi>"), "{page}");
    }
    let told = keeping.get(&format!("/v1/history/{id}")).json();
    assert_eq!(told["correction"]["label"], "Sandal <b> 靴");
    assert_eq!(told["results"][0]["label"], "label <0>", "what the model said stays");

    for wrong in [&b"label="[..], b"label=++", b"label=a%00b", b"", &[b"label=".to_vec(), vec![b'x'; 201]].concat()] {
        let refused = send(wrong);
        assert!(refused.status == 400 && refused.text().contains("allowed are 1 to 200 bytes"), "{}", refused.text());
    }
    assert_eq!(send(&[b"label=".to_vec(), vec![b'x'; 4 << 10]].concat()).status, 413);
    assert_eq!(keeping.get(&format!("/v1/history/{id}")).json()["correction"]["label"], "Sandal <b> 靴");
    assert_eq!(send(b"label=Sandal&take_back=1").status, 303);
    assert_eq!(keeping.get(&format!("/v1/history/{id}")).json()["correction"], Value::Null);

    // Looking at the question deletes nothing.
    assert!(keeping.get(&delete).text().contains("Delete this for good?"));
    assert_eq!(keeping.get(&record).status, 200);
    let gone = keeping.ask("POST", &delete, &[FORM], b"");
    assert_eq!((gone.status, gone.header("location")), (303, Some("/history")));
    for path in [&record, &delete] {
        let page = keeping.get(path);
        assert!(page.status == 404 && page.text().contains(&id), "{path}");
    }
    assert_eq!(keeping.ask("POST", &delete, &[FORM], b"").status, 404);
    assert_eq!(send(b"label=x").status, 404);
}

#[test]
fn programs_correct_and_delete() {
    let keeping = Keeping::start(&[]);
    let id = keeping.keep();
    let correction = format!("/v1/history/{id}/correction");
    let put = |body: &[u8]| keeping.ask("PUT", &correction, &[JSON], body);
    assert_eq!(put(br#"{"label": "Sandal"}"#).status, 204);
    assert_eq!(keeping.get(&format!("/v1/history/{id}")).json()["correction"]["label"], "Sandal");
    for (body, status) in [
        (&br#"{"label": ""}"#[..], 400),
        (br#"{"label": 7}"#, 400),
        (br#"{"lable": "x"}"#, 400),
        (b"Sandal", 400),
        (&[b' '; 5_000], 413),
    ] {
        assert_eq!(put(body).status, status, "{}", String::from_utf8_lossy(&body[..body.len().min(40)]));
    }
    assert_eq!(keeping.ask("DELETE", &correction, &[], b"").status, 204);
    assert_eq!(keeping.get(&format!("/v1/history/{id}")).json()["correction"], Value::Null);
    for other in ["not-an-id", "..%2F..%2Fetc%2Fpasswd", "01931b6e-1c1a-7c3e-9f0a-0123456789ab"] {
        let status = if other.starts_with('0') { 404 } else { 400 };
        for (method, path) in [
            ("GET", format!("/v1/history/{other}")),
            ("GET", format!("/v1/history/{other}/picture")),
            ("GET", format!("/v1/history/{other}/preview")),
            ("DELETE", format!("/v1/history/{other}")),
            ("DELETE", format!("/v1/history/{other}/correction")),
        ] {
            let answer = keeping.ask(method, &path, &[], b"");
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
    }
    assert_eq!(keeping.ask("DELETE", &format!("/v1/history/{id}"), &[], b"").status, 204);
    assert_eq!(keeping.ask("DELETE", &format!("/v1/history/{id}"), &[], b"").status, 404);
    assert_eq!(put(br#"{"label": "Sandal"}"#).status, 404);
}

#[test]
fn pictures_come_as_they_were_sent_and_can_be_no_page() {
    let keeping = Keeping::start(&[]);
    let page = b"<script>alert(1)</script>";
    let id = acknowledged(&keeping.ask("POST", KEEP, &[PNG], page));
    let path = format!("/v1/history/{id}/picture");
    let picture = wait_until("the picture", || Some(keeping.get(&path)).filter(|answer| answer.status == 200));
    assert_eq!((picture.header("content-type"), picture.body.as_slice()), (Some("image/png"), &page[..]));
    let preview = keeping.get(&format!("/v1/history/{id}/preview"));
    assert_eq!((preview.header("content-type"), preview.body.as_slice()), (Some("image/jpeg"), &b"a small jpeg"[..]));
    for answer in [&picture, &preview] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; sandbox"));
        assert!(answer.header("cache-control").is_some_and(|value| value.starts_with("private")));
    }
    let record = keeping.get(&format!("/history/{id}")).text().replace("&#x2f;", "/");
    assert!(
        record.contains(&format!("src=\"/v1/history/{id}/preview\"")) && record.contains(&format!("href=\"{path}\""))
    );
    // What was deleted cannot be had by an address that somebody noted.
    assert_eq!(keeping.ask("DELETE", &format!("/v1/history/{id}"), &[], b"").status, 204);
    assert_eq!(keeping.get(&path).status, 404);
    let pictures = keeping.folder.path().join("pictures");
    let left = walk(&pictures).into_iter().filter(|path| path.contains(&id)).count();
    assert_eq!(left, 0, "nothing of it stays on the disk");
}

/// The id of a picture that can be read, of more bytes than the system takes for a reader who does not read.
fn large_picture(keeping: &Keeping) -> String {
    let id = acknowledged(&keeping.ask("POST", KEEP, &[PNG], &vec![7; 13 << 20]));
    let path = format!("/v1/history/{id}/picture");
    wait_until("the picture", || (keeping.get(&path).status == 200).then_some(()));
    id
}

/// Has asked, and read the beginning of the answer.
fn reader_who_stops(keeping: &Keeping, path: &str) -> TcpStream {
    let mut reader = connect(&keeping.gateway.address);
    reader.write_all(&request("GET", path, &[], b"")).expect("sent");
    let mut begin = [0; 12];
    reader.read_exact(&mut begin).expect("an answer begins");
    assert_eq!(&begin, b"HTTP/1.1 200");
    reader
}

/// Readers who are slow, or never read, hold so much and no more, and keep nobody from asking.
#[test]
fn pictures_on_their_way_are_bounded() {
    let settings = ["limits.picture=14MiB", "limits.json=1MiB", "limits.bodies=40MiB"];
    let keeping = Keeping::start(&settings);
    let id = large_picture(&keeping);
    let path = format!("/v1/history/{id}/picture");
    let readers: Vec<_> = (0..3).map(|_| reader_who_stops(&keeping, &path)).collect();
    let refused = keeping.get(&path);
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(keeping.get(&format!("/v1/history/{id}/preview")).status, 200, "a small one has room");
    assert_eq!(keeping.ask("POST", KEEP, &[PNG], &vec![7; 13 << 20]).status, 200, "bodies are counted by themselves");
    drop(readers);
    let whole = wait_until("room", || Some(keeping.get(&path)).filter(|answer| answer.status == 200));
    assert_eq!(whole.body.len(), 13 << 20);
}

/// Its system goes on saying that it is there, so that only time tells.
#[test]
fn a_reader_who_takes_nothing_is_cut_off_and_its_room_is_another_s() {
    let settings = ["limits.picture=14MiB", "limits.json=1MiB", "limits.bodies=40MiB", "limits.write_stall=1s"];
    let keeping = Keeping::start(&settings);
    let path = format!("/v1/history/{}/picture", large_picture(&keeping));
    let _readers: Vec<_> = (0..3).map(|_| reader_who_stops(&keeping, &path)).collect();
    wait_until("room", || (keeping.get(&path).status == 200).then_some(()));
}

#[test]
fn a_picture_that_is_on_its_way_arrives_whole_also_when_the_gateway_is_told_to_end() {
    let mut keeping = Keeping::start(&["limits.picture=14MiB", "limits.json=1MiB", "limits.bodies=40MiB"]);
    let path = format!("/v1/history/{}/picture", large_picture(&keeping));
    let mut reader = reader_who_stops(&keeping, &path);
    keeping.gateway.terminate();
    // A drain that has nothing to wait for is over before.
    std::thread::sleep(Duration::from_secs(1));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("it is not cut");
    assert!(rest.len() > 13 << 20, "{} bytes", rest.len());
    assert!(keeping.gateway.wait().success());
}

/// A picture that nobody can read leaves a record, and no picture.
#[test]
fn what_failed_is_kept_without_its_picture() {
    let keeping = Keeping::start(&[]);
    assert_eq!(keeping.upload("notes.txt", fault::Kind::UnsupportedMedia.row().name).status, 415);
    let [record] = &keeping.listed(1)[..] else { panic!("one record") };
    assert_eq!((&record["outcome"], &record["picture"]), (&json!("unsupported_media"), &Value::Null), "{record}");
    let id = record["id"].as_str().expect("an id");
    assert_eq!(keeping.get(&format!("/v1/history/{id}/picture")).status, 404);
    let page = keeping.get(&format!("/history/{id}")).text();
    assert!(page.contains("The answer was an error: unsupported_media."), "{page}");
    // That there is no server says nothing about the picture.
    assert_eq!(keeping.upload("shoe.png", fault::Kind::Unavailable.row().name).status, 503);
    keeping.keep();
    assert_eq!(keeping.listed(2).len(), 2);
}

#[test]
fn names_of_files_are_texts_and_never_paths() {
    let keeping = Keeping::start(&[]);
    let long = format!("{}.png", "x".repeat(300));
    let cases = [
        ("../../../../tmp/outboard-was-here.png", "outboard-was-here.png"),
        // As browsers quote them: a backslash alone quotes what follows.
        ("..\\\\..\\\\windows\\\\win.ini", "win.ini"),
        ("", ""),
        ("..", ""),
        ("a\u{202e}gnp.exe", "agnp.exe"),
        ("\u{2066}b\u{2069}\u{200b}.png", "b.png"),
        ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"),
        ("Größe 42, 靴.png", "Größe 42, 靴.png"),
        ("con.png", "_con.png"),
        (&long, &format!("{}.png", "x".repeat(116))),
    ];
    for (name, _) in cases {
        assert_eq!(keeping.upload(name, "good").status, 200, "{name:?}");
    }
    // Such a form is none.
    assert_eq!(keeping.upload("tab\there\u{7f}.png", "good").status, 400);
    let records = keeping.listed(cases.len());
    for ((sent, safe), record) in cases.iter().zip(records.iter().rev()) {
        assert_eq!(record["file_name"], *safe, "{sent:?}");
        let id = record["id"].as_str().expect("an id");
        let picture = keeping.get(&format!("/v1/history/{id}/picture"));
        let disposition = picture.header("content-disposition");
        match safe.is_empty() {
            true => assert_eq!(disposition, None, "{sent:?}"),
            false => {
                let said = disposition.expect("a name to save it by");
                let name = said.strip_prefix("inline; filename*=UTF-8''").unwrap_or_else(|| panic!("{said}"));
                let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&+-.^_`|~%=".contains(c);
                assert!(name.chars().all(plain), "{sent:?}: {said}");
            }
        }
        let page = keeping.get(&format!("/history/{id}")).text();
        assert!(!page.contains("<img src=x") && !page.contains('\u{202e}'), "{sent:?}");
    }
    assert!(!Path::new("/tmp/outboard-was-here.png").exists());
    let pictures = keeping.folder.path().join("pictures");
    let odd = walk(&pictures).into_iter().find(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    });
    assert_eq!(odd, None, "files are called by ids");
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let keeping = Keeping::start(&[]);
    let id = keeping.keep();
    for foreign in [&[FORM, FOREIGN][..], &[FORM, ("sec-fetch-site", "cross-site")]] {
        for (path, body) in [("delete", &b""[..]), ("correct", b"label=x")] {
            let refused = keeping.ask("POST", &format!("/history/{id}/{path}"), foreign, body);
            assert_eq!(refused.status, 403, "{}", refused.text());
        }
    }
    let record = keeping.get(&format!("/v1/history/{id}")).json();
    assert_eq!(record["correction"], Value::Null);
}

#[test]
fn who_signed_in_by_a_cookie_needs_the_token_of_the_page_for_every_change() {
    let folder = TempDir::new().expect("a folder");
    let place = format!("history.folder={}", folder.path().display());
    let guarded = Guarded::start_with(&["history.store=sqlite", &place]);
    let ann = guarded.key("ann", &[Scope::Infer, Scope::HistoryRead, Scope::HistoryDelete], None);
    let id = kept_with(&guarded, ann.expose());
    let (cookie, token) = guarded.sign_in(&ann);
    let cookie = ("cookie", cookie.as_str());
    let record = format!("/history/{id}");
    let page = wait_until("the record", || {
        Some(guarded.ask("GET", &record, &[cookie], b"")).filter(|page| page.status == 200)
    });
    let forms = format!("action=\"{record}/correct?csrf={token}\"");
    assert!(page.text().contains(&forms), "its form carries the token: {}", page.text());
    let api = format!("/v1/history/{id}");
    for (method, path, headers, body) in [
        ("POST", format!("{record}/correct"), &[FORM, cookie][..], &b"label=x"[..]),
        ("POST", format!("{record}/correct?csrf=x"), &[FORM, cookie], b"label=x"),
        ("POST", format!("{record}/correct?csrf={token}"), &[FORM, cookie, FOREIGN], b"label=x"),
        ("POST", format!("{record}/delete"), &[FORM, cookie], b""),
        ("PUT", format!("{api}/correction"), &[JSON, cookie], br#"{"label":"x"}"#),
        ("DELETE", format!("{api}/correction"), &[cookie], b""),
        ("DELETE", api.clone(), &[cookie], b""),
        ("DELETE", api.clone(), &[cookie, ("x-csrf-token", "x")], b""),
    ] {
        let refused = guarded.ask(method, &path, headers, body);
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.text());
    }
    let told = guarded.ask("GET", &api, &[cookie], b"").json();
    assert_eq!((&told["correction"], &told["caller"]), (&Value::Null, &json!("ann")));
    let noted = guarded.ask("POST", &format!("{record}/correct?csrf={token}"), &[FORM, cookie], b"label=Sandal");
    assert_eq!(noted.status, 303, "{}", noted.text());
    assert_eq!(guarded.ask("GET", &api, &[cookie], b"").json()["correction"]["by"], "ann");
    let gone = guarded.ask("DELETE", &api, &[cookie, ("x-csrf-token", &token)], b"");
    assert_eq!(gone.status, 204, "{}", gone.text());
}

/// The id of a picture that somebody with a key has kept.
fn kept_with(guarded: &Guarded, key: &str) -> String {
    let headers = [PNG, ("authorization", &format!("Bearer {key}"))];
    acknowledged(&guarded.ask("POST", KEEP, &headers, b"a picture"))
}

#[test]
fn scopes_say_who_may_look_correct_and_delete() {
    let folder = TempDir::new().expect("a folder");
    let place = format!("history.folder={}", folder.path().display());
    let guarded = Guarded::start_with(&["history.store=sqlite", &place]);
    let asker = guarded.key("asker", &[Scope::Infer], None);
    let reader = guarded.key("reader", &[Scope::HistoryRead], None);
    let remover = guarded.key("remover", &[Scope::HistoryDelete], None);
    let id = kept_with(&guarded, asker.expose());
    let api = format!("/v1/history/{id}");
    wait_until("the record", || (guarded.with_key("GET", &api, reader.expose(), b"").status == 200).then_some(()));
    for (method, path, body, [asks, reads, removes]) in [
        ("GET", "/v1/history".to_owned(), &b""[..], [403, 200, 403]),
        ("GET", api.clone(), b"", [403, 200, 403]),
        ("GET", format!("{api}/picture"), b"", [403, 200, 403]),
        ("GET", "/history".to_owned(), b"", [403, 200, 403]),
        ("GET", format!("/history/{id}"), b"", [403, 200, 403]),
        ("PUT", format!("{api}/correction"), br#"{"label":"x"}"#, [403, 204, 403]),
        ("DELETE", format!("{api}/correction"), b"", [403, 204, 403]),
        ("POST", format!("/history/{id}/delete"), b"", [403, 403, 303]),
        ("DELETE", api, b"", [403, 403, 404]),
    ] {
        for (key, status) in [(&asker, asks), (&reader, reads), (&remover, removes)] {
            let answer = guarded.with_key(method, &path, key.expose(), body);
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
        assert_eq!(guarded.ask(method, &path, &[], body).status, 401, "{method} {path}");
    }
}

#[test]
fn while_the_store_is_away_everything_is_answered_and_follows_later() {
    // A port of a service that nobody has any more.
    let nobody = "history.cassandra.nodes=127.0.0.1:1";
    let mut keeping = Keeping::start(&["history.store=cassandra", nobody, "history.timeout=1s"]);
    let promised: Vec<String> =
        (0..3).map(|_| acknowledged(&keeping.ask("POST", KEEP, &[PNG], b"a picture"))).collect();
    assert_eq!(keeping.upload("shoe.png", "good").status, 200);
    wait_until("the gateway to notice", || {
        let ready = keeping.get("/health/ready");
        assert_eq!(ready.status, 200, "requests are answered: {}", ready.text());
        ready.json()["degraded"].as_str().map(|_| ())
    });
    let list = keeping.get("/v1/history");
    assert_eq!((list.status, list.code().as_str()), (503, "unavailable"));
    assert!(list.header("retry-after").is_some());
    assert!(!list.text().contains("127.0.0.1"), "hosts are for the log: {}", list.text());
    let page = keeping.get("/history");
    assert!(page.status == 503 && page.text().contains("wait for the store"), "{}", page.text());
    assert_eq!(keeping.ask("DELETE", &format!("/v1/history/{}", promised[0]), &[], b"").status, 503);

    keeping.gateway.terminate();
    assert!(keeping.gateway.wait().success());
    keeping.gateway = launch(&keeping.server, keeping.folder.path(), &[]);
    let found = keeping.listed(4);
    for id in promised {
        assert_eq!(found.iter().filter(|record| record["id"] == id).count(), 1, "{id}");
    }
    assert!(keeping.get("/health/ready").json().get("degraded").is_none());
}

/// As a full disk or a damaged one does at a restart: the pictures are answered all the same.
#[test]
fn a_gateway_starts_with_a_database_that_it_cannot_use() {
    let (server, folder) = (FakeServer::start(), TempDir::new().expect("a folder"));
    let file = folder.path().join("history.sqlite3");
    std::fs::write(&file, "damaged ".repeat(1_000)).expect("written");
    let gateway = launch(&server, folder.path(), &[]);
    let keeping = Keeping { gateway, folder, server };
    let id = acknowledged(&keeping.ask("POST", KEEP, &[PNG], b"a picture"));
    wait_until("the gateway to notice", || {
        keeping.get("/health/ready").json()["degraded"].as_str().filter(|why| why.contains("history")).map(|_| ())
    });
    assert_eq!(keeping.get("/v1/history").status, 503);
    std::fs::write(&file, "").expect("emptied");
    assert_eq!(keeping.listed(1)[0]["id"], id);
}

#[test]
fn what_is_not_to_be_kept_is_not_and_without_a_history_pages_say_so() {
    let keeping = Keeping::start(&["history.pages=false", "history.pictures=none"]);
    assert_eq!(keeping.upload("shoe.png", "good").status, 200);
    assert!(keeping.ask("POST", "/v1/classify?model=good", &[PNG], b"x").json().get("kept").is_none());
    let id = keeping.keep();
    assert_eq!(keeping.listed(1)[0]["picture"], Value::Null);
    assert_eq!(keeping.get(&format!("/v1/history/{id}/picture")).status, 404);
    assert!(!keeping.get(&format!("/history/{id}")).text().contains("/picture\""));
    assert_eq!(keeping.listed(1)[0]["sha256"].as_str().map(str::len), Some(64), "it can be told which one it was");

    let server = FakeServer::start();
    let bare = Gateway::start(&server.address.to_string(), &[]);
    for path in ["/history", "/v1/history", "/v1/history/01931b6e-1c1a-7c3e-9f0a-0123456789ab"] {
        let answer = get(&bare.address, path);
        assert!(answer.status == 404 && answer.text().contains("keeps no history"), "{path}: {}", answer.text());
    }
    assert!(!get(&bare.address, "/upload").text().contains("href=\"/history\""));
}
