//! `outboard models pull`: a model from a hub as a folder that a server serves.
//!
//! Promises: the folder appears under its name when it is whole and checked, never before; an interrupted download goes on where it
//! stopped, or begins anew when what is asked for has changed; nothing is written outside that folder and `.pull-NAME` beside it; all
//! files are of one commit, and each is checked against the sum that the hub lists for it.
//! Not here: the requests, redirects and partial downloads (`hub`).

mod hub;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use units::ModelName;

use self::hub::Hub;
use crate::exit::{Failure, NO, USAGE};
use crate::say::say;

/// Of a commit's name: a SHA-1 in hexadecimal digits.
const COMMIT_DIGITS: usize = 40;

/// What is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) repository: &'a str,
    pub(crate) variant: Option<&'a str>,
    pub(crate) revision: &'a str,
    /// Where models are; those of the cache folder when absent.
    pub(crate) into: Option<&'a Path>,
    pub(crate) name: Option<&'a str>,
}

/// What the hub says about a repository at one commit.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    /// Git's name for a file that is in the repository itself.
    #[serde(default, rename = "blobId")]
    blob: Option<String>,
    #[serde(default)]
    lfs: Option<Large>,
}

/// A file that is kept apart from the repository, as all large ones are.
#[derive(Deserialize)]
struct Large {
    sha256: String,
}

pub(crate) fn run(wanted: &Wanted<'_>) -> Result<(), Failure> {
    let Some((_, name)) = wanted.repository.split_once('/').filter(|_| is_safe(wanted.repository)) else {
        return Err(Failure::new(USAGE, format!("{} is no repository, expected OWNER/NAME", wanted.repository)));
    };
    let name = wanted.name.map_or_else(|| name.to_ascii_lowercase(), str::to_owned);
    ModelName::parse(&name).map_err(|error| Failure::new(USAGE, error.to_string()))?;
    let into = match wanted.into {
        Some(into) => into.to_owned(),
        None => runtime::cache_folder()
            .ok_or_else(|| Failure::new(USAGE, "there is no cache folder without HOME: give --into"))?
            .join("models"),
    };
    let (target, work) = (into.join(&name), into.join(format!(".pull-{}", name.replace('/', "--"))));
    if target.exists() {
        return Err(Failure::new(
            NO,
            format!("{} is there already: remove it, or give another --name", target.display()),
        ));
    }
    let hub = Hub::from_env();
    let listing = list(&hub, wanted)?;
    let files = choose(&listing, wanted)?;
    // What was named by a branch is from now on named by its commit.
    let source = (wanted.repository, listing.sha.as_str());
    let (staged, parts) = (work.join("model"), work.join("parts"));
    begin(&work, &of(&hub, source, wanted.variant, &files))?;
    let mut bytes = 0;
    for (place, listed) in &files {
        bytes += fetch(&hub, source, listed, &staged.join(place), &parts.join(place)).inspect_err(|_| {
            // What nothing has come for is no beginning to go on from.
            if !holds(&staged) && !holds(&parts) {
                let _ = fs::remove_dir_all(&work);
            }
        })?;
    }
    if let Some(above) = target.parent() {
        fs::create_dir_all(above).map_err(|error| broken(above, &error))?;
    }
    fs::rename(&staged, &target).map_err(|error| broken(&target, &error))?;
    let _ = fs::remove_dir_all(&work);
    say(format_args!(
        "{}: {} files, {:.1} MB, of {} at {}",
        target.display(),
        files.len(),
        bytes as f64 / 1e6,
        wanted.repository,
        listing.sha
    ));
    let served = model_store::read(&target.canonicalize().map_err(|error| broken(&target, &error))?);
    match served {
        Ok(Some(_)) => {
            say("A server takes it at its next start.");
            Ok(())
        }
        Ok(None) => Err(Failure::new(NO, format!("{} is no model that can be served", target.display()))),
        Err(error) => Err(Failure::new(NO, format!("it cannot be served: {error}"))),
    }
}

/// What a work folder is of. Files of two pulls belong together only when this is the same.
fn of(
    hub: &Hub,
    (repository, commit): (&str, &str),
    variant: Option<&str>,
    files: &BTreeMap<PathBuf, &Listed>,
) -> String {
    let files: Vec<_> = files.iter().map(|(place, listed)| (place, &listed.rfilename, listed.size)).collect();
    json!({
        "hub": hub.endpoint, "repository": repository, "commit": commit, "variant": variant, "files": files,
    })
    .to_string()
}

/// Makes the work folder, empty unless what is in it was fetched for the same pull.
fn begin(work: &Path, of: &str) -> Result<(), Failure> {
    let record = work.join("of.json");
    if fs::read_to_string(&record).is_ok_and(|before| before == of) {
        return Ok(());
    }
    match fs::remove_dir_all(work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(work, &error)),
        _ => {}
    }
    fs::create_dir_all(work).and_then(|()| fs::write(&record, of)).map_err(|error| broken(&record, &error))
}

/// Whether there is a byte of a file somewhere in the folder.
fn holds(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => holds(&entry.path()),
        Ok(data) => data.len() > 0,
        Err(_) => true,
    })
}

/// Two parts that are safe in a path and in an address.
fn is_safe(repository: &str) -> bool {
    repository.matches('/').count() == 1 && ModelName::parse(repository).is_ok()
}

fn list(hub: &Hub, wanted: &Wanted<'_>) -> Result<Listing, Failure> {
    let text = hub.list(wanted.repository, wanted.revision)?;
    let no = |reason: String| Failure::new(NO, format!("the hub's list of {}: {reason}", wanted.repository));
    let listing: Listing = serde_json::from_str(&text).map_err(|error| no(error.to_string()))?;
    // It becomes part of addresses.
    if listing.sha.len() != COMMIT_DIGITS || !listing.sha.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(no(format!("{:?} is no commit", listing.sha)));
    }
    Ok(listing)
}

/// The files of the model, by their places in its folder.
fn choose<'l>(listing: &'l Listing, wanted: &Wanted<'_>) -> Result<BTreeMap<PathBuf, &'l Listed>, Failure> {
    let no = |reason: String| Failure::new(NO, format!("{} {reason}", wanted.repository));
    // What has another name is nothing that belongs to a model; names become paths, and stand on people's terminals.
    let safe = |file: &&Listed| file.rfilename.split('/').all(|part| ModelName::parse(part).is_ok());
    let siblings: Vec<&Listed> = listing.siblings.iter().filter(safe).collect();
    // Where the graphs lie: below `onnx` in most repositories, at the top in some.
    let graphs = |folder: &'static str| {
        siblings.iter().filter_map(move |file| {
            let variant = file.rfilename.strip_prefix(folder)?.strip_prefix("model")?.strip_suffix(".onnx")?;
            if variant.is_empty() { Some("") } else { variant.strip_prefix('_') }
        })
    };
    let Some(folder) = ["onnx/", ""].into_iter().find(|folder| graphs(folder).next().is_some()) else {
        return Err(no("has no onnx/model.onnx: it is no export for ONNX Runtime".to_owned()));
    };
    let variant = wanted.variant.unwrap_or_default();
    if !graphs(folder).any(|one| one == variant) {
        let mut known: Vec<&str> = graphs(folder).filter(|one| !one.is_empty()).collect();
        known.sort_unstable();
        let plain = if graphs(folder).any(str::is_empty) { "the plain one and " } else { "" };
        let asked = if variant.is_empty() { "no plain graph".to_owned() } else { format!("no variant {variant}") };
        return Err(no(format!("has {asked}, it has {plain}--variant {}", known.join(", "))));
    }
    let stem = if variant.is_empty() { "model".to_owned() } else { format!("model_{variant}") };
    let place = |file: &Listed| -> Option<PathBuf> {
        let name = file.rfilename.as_str();
        if let Some(graph) = name.strip_prefix(folder) {
            // Weights outside the graph are found by the name that they have.
            let weights = [format!("{stem}.onnx_data"), format!("{stem}.onnx.data")];
            if graph == format!("{stem}.onnx") {
                return Some(PathBuf::from("onnx/model.onnx"));
            }
            if !graph.contains('/') && weights.iter().any(|start| graph.starts_with(start.as_str())) {
                return Some(Path::new("onnx").join(graph));
            }
        }
        let describes = |name: &str| {
            [".json", ".jinja", ".txt", ".md"].iter().any(|end| name.ends_with(end)) || name.starts_with("LICENSE")
        };
        let belongs = match name.split_once('/') {
            None => describes(name),
            // How sentence-transformers keeps the parts of a model.
            Some((part, file)) => file == "config.json" && part.starts_with(|first: char| first.is_ascii_digit()),
        };
        belongs.then(|| PathBuf::from(name))
    };
    let files: BTreeMap<_, _> = siblings.iter().filter_map(|file| Some((place(file)?, *file))).collect();
    match files.values().find(|file| file.lfs.is_none() && file.blob.is_none()) {
        Some(file) => {
            Err(no(format!("is listed with no checksum for {}: what comes could not be checked", file.rfilename)))
        }
        None => Ok(files),
    }
}

/// Brings a file to its place by way of `part`, unless it is there already; its bytes.
fn fetch(hub: &Hub, source: (&str, &str), listed: &Listed, place: &Path, part: &Path) -> Result<u64, Failure> {
    let name = &listed.rfilename;
    if place.exists() && wrong(listed, place).map_err(|error| broken(place, &error))?.is_none() {
        return Ok(fs::metadata(place).map_or(0, |data| data.len()));
    }
    for path in [place, part] {
        let above = path.parent().unwrap_or(path);
        fs::create_dir_all(above).map_err(|error| broken(above, &error))?;
    }
    hub.download(source, name, listed.size, part)?;
    if let Some(wrong) = wrong(listed, part).map_err(|error| broken(part, &error))? {
        let _ = fs::remove_file(part);
        return Err(Failure::new(NO, format!("{name} {wrong}; it was thrown away, try again")));
    }
    fs::rename(part, place).map_err(|error| broken(place, &error))?;
    Ok(fs::metadata(place).map_or(0, |data| data.len()))
}

/// What is wrong with a file that was fetched.
fn wrong(listed: &Listed, file: &Path) -> io::Result<Option<String>> {
    let size = fs::metadata(file)?.len();
    if let Some(expected) = listed.size.filter(|expected| *expected != size) {
        return Ok(Some(format!("has {size} bytes, the hub says {expected}")));
    }
    let (method, sum, expected) = match (&listed.lfs, &listed.blob) {
        (Some(large), _) => ("SHA-256", sum::<Sha256>(file, b"")?, &large.sha256),
        (None, Some(blob)) => ("git SHA-1", sum::<Sha1>(file, format!("blob {size}\0").as_bytes())?, blob),
        (None, None) => return Ok(Some("has no checksum on the hub".to_owned())),
    };
    let same = sum.eq_ignore_ascii_case(expected);
    Ok((!same).then(|| format!("has the {method} {sum}, the hub says {expected}")))
}

/// The sum of a file with something in front of it, in hexadecimal digits.
fn sum<D: Digest>(file: &Path, before: &[u8]) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(file)?, D::new_with_prefix(before), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..count]);
    }
}

fn broken(path: &Path, error: &io::Error) -> Failure {
    Failure::new(NO, format!("{}: {error}", path.display()))
}
