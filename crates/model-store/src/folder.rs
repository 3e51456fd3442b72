//! A folder with one model in it, and folders of such folders.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use units::ModelName;

use crate::error::StoreError;
use crate::hugging_face;
use crate::sentence;
use crate::settings::{Settings, Task};

/// One version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The name of its folder; versions are ordered by its value.
    pub number: u64,
    /// `model.onnx`.
    pub model: PathBuf,
    /// When that was written, as far as the file system tells.
    pub modified: Option<SystemTime>,
}

impl Version {
    fn new(number: u64, model: PathBuf) -> Self {
        let modified = fs::metadata(&model).and_then(|data| data.modified()).ok();
        Self { number, model, modified }
    }

    /// The SHA-256 of the model file in hexadecimal. Reads all of it, so it is asked for and not known beforehand.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sha256(&self) -> Result<String, StoreError> {
        let failed = |error| StoreError::Read { path: self.model.clone(), error };
        let mut file = fs::File::open(&self.model).map_err(failed)?;
        let (mut sum, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece).map_err(failed)? {
                0 => return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                count => sum.update(&piece[..count]),
            }
        }
    }
}

/// A model on disk.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    /// The folder's name.
    pub name: ModelName,
    /// The folder.
    pub path: PathBuf,
    /// What `model.toml` says.
    pub settings: Settings,
    /// Oldest first; at least one.
    pub versions: Vec<Version>,
    /// Class names in index order; empty when there are none.
    pub labels: Vec<String>,
}

impl ModelFolder {
    /// The version that serves when none is asked for.
    #[must_use]
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("a folder without a version is refused when it is read")
    }

    /// The most tokens that a language model was trained for, as its `config.json` says; `None` when it does not.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn trained_context(&self) -> Result<Option<usize>, StoreError> {
        let path = self.path.join(hugging_face::CONFIG);
        match fs::read_to_string(&path) {
            Ok(text) => hugging_face::trained_context(&text)
                .map_err(|reason| StoreError::Settings { path: self.path.clone(), reason }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::Read { path, error }),
        }
    }
}

/// Reads every model folder in `root`, by name; other folders (hidden ones and `lost+found` among them) and files in it are
/// left alone.
///
/// # Errors
/// When `root` itself cannot be read. What is wrong with one folder is an item of the list.
pub fn scan(root: &Path) -> Result<Vec<Result<ModelFolder, Rejected>>, StoreError> {
    let mut folders = entries(root)?;
    folders.retain(|path| !is_foreign(path) && path.is_dir());
    folders.sort();
    let rejected = |path: &Path, error| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Rejected { name, error }
    };
    Ok(folders.iter().filter_map(|path| read(path).map_err(|error| rejected(path, error)).transpose()).collect())
}

/// Whether a folder belongs to the file system or to a tool: `lost+found`, which nobody but root may look into, and hidden
/// ones, as Kubernetes puts into a volume.
fn is_foreign(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "lost+found" || name.as_encoded_bytes().starts_with(b"."))
}

/// A folder that is no model though it looks like one.
#[derive(Debug)]
pub struct Rejected {
    /// The folder's name.
    pub name: String,
    /// What is wrong with it.
    pub error: StoreError,
}

/// Reads the model in `path`; `None` when there is neither a `model.toml` nor a version in it.
///
/// # Errors
/// [`StoreError`].
pub fn read(path: &Path) -> Result<Option<ModelFolder>, StoreError> {
    let file = path.join("model.toml");
    let text = match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(StoreError::Read { path: file, error }),
    };
    let mut versions = versions(path)?;
    let export = path.join(hugging_face::MODEL);
    let is_export = versions.is_empty() && export.is_file() && path.join(hugging_face::CONFIG).is_file();
    if is_export {
        versions.push(Version::new(1, export));
    }
    if versions.is_empty() {
        // A card without its model: one that is imported into another folder. Only a folder with settings and labels but
        // nothing to run is worth a word, and the caller says it when nothing else serves that name.
        return if text.is_some() { Err(StoreError::NoVersion { path: path.to_owned() }) } else { Ok(None) };
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = ModelName::parse(&name).map_err(|error| StoreError::Name { path: path.to_owned(), error })?;
    // What a person wrote counts before what a program exported.
    let (settings, labels) = match text {
        None if is_export => read_export(path)?,
        text => {
            let settings = Settings::parse(&text.unwrap_or_default())
                .map_err(|reason| StoreError::Settings { path: file.clone(), reason })?;
            let labels = settings.labels.as_ref().map(|labels| read_labels(path, &file, labels)).transpose()?;
            (settings, labels.unwrap_or_default())
        }
    };
    Ok(Some(ModelFolder { name, path: path.to_owned(), settings, versions, labels }))
}

fn read_export(path: &Path) -> Result<(Settings, Vec<String>), StoreError> {
    let text = |file: &Path| {
        let path = path.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::Read { path, error }),
        }
    };
    let wrong = |reason| StoreError::Settings { path: path.to_owned(), reason };
    if path.join(sentence::MODULES).is_file() {
        let read = |file: &Path| {
            // The files name folders, and may come from anywhere.
            if !is_inside(file) {
                return Err(format!("{}: `{}` leads out of the folder", sentence::MODULES, file.display()));
            }
            text(file).map_err(|error| error.to_string())
        };
        let embed = sentence::read(read).map_err(wrong)?;
        return Ok((Settings { task: Task::Embed, embed, ..Settings::default() }, Vec::new()));
    }
    let text = |file: &str| text(Path::new(file));
    let (config, preprocessor) = (text(hugging_face::CONFIG)?.unwrap_or_default(), text(hugging_face::PREPROCESSOR)?);
    let has_tokenizer = path.join(hugging_face::TOKENIZER).is_file();
    let (mut settings, labels) = hugging_face::read(&config, preprocessor.as_deref(), has_tokenizer).map_err(wrong)?;
    if settings.task == Task::Chat
        && let Some(generation) = text(hugging_face::GENERATION)?
    {
        settings.chat = hugging_face::recommended(&generation).map_err(wrong)?;
    }
    Ok((settings, labels))
}

/// Whether a path stays below the folder that it is joined to.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn read_labels(folder: &Path, file: &Path, labels: &str) -> Result<Vec<String>, StoreError> {
    if !is_inside(Path::new(labels)) {
        return Err(StoreError::Outside { path: file.to_owned(), key: "labels", value: labels.to_owned() });
    }
    let path = folder.join(labels);
    // A link in an unpacked archive may lead anywhere.
    let real = |path: &Path| path.canonicalize().map_err(|error| StoreError::Read { path: path.to_owned(), error });
    if !real(&path)?.starts_with(real(folder)?) {
        return Err(StoreError::Outside { path: file.to_owned(), key: "labels", value: labels.to_owned() });
    }
    let text = fs::read_to_string(&path).map_err(|error| StoreError::Read { path, error })?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

fn versions(path: &Path) -> Result<Vec<Version>, StoreError> {
    let mut versions: Vec<Version> = entries(path)?
        .into_iter()
        .filter_map(|folder| {
            let number = folder.file_name()?.to_str()?.parse().ok()?;
            let model = folder.join("model.onnx");
            model.is_file().then(|| Version::new(number, model))
        })
        .collect();
    versions.sort_by_key(|version| version.number);
    Ok(versions)
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = |error| StoreError::Read { path: path.to_owned(), error };
    fs::read_dir(path).map_err(read)?.map(|entry| entry.map(|entry| entry.path()).map_err(read)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a temporary folder");
        fs::write(path, text).expect("a temporary file");
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for version in ["10", "9", "1", "notes"] {
            write(root.path(), &format!("m/{version}/model.onnx"), "");
        }
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!(model.versions.iter().map(|v| v.number).collect::<Vec<_>>(), [1, 9, 10]);
        assert_eq!(model.newest().number, 10);
        assert!(model.newest().modified.is_some_and(|at| at > SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn one_bad_folder_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary folder");
        write(root.path(), "good/1/model.onnx", "");
        write(root.path(), "bad/1/model.onnx", "");
        write(root.path(), "bad/model.toml", "tusk = 1");
        write(root.path(), "empty/model.toml", "");
        write(root.path(), "train/train.py", "");
        write(root.path(), "README.md", "");
        write(root.path(), "lost+found/model.toml", "tusk = 1");
        write(root.path(), "..2026_11_21/model.toml", "tusk = 1");
        let found = scan(root.path()).expect("the root reads");
        let told: Vec<String> = found
            .iter()
            .map(|one| one.as_ref().map_or_else(|one| one.error.to_string(), |model| model.name.to_string()))
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("bad/model.toml: line 1") && told[0].contains("tusk"), "{told:?}");
        assert!(told[1].contains("empty: no version"), "{told:?}");
        assert_eq!(told[2], "good");
    }

    #[test]
    fn labels_outside_the_folder_are_not_read() {
        let root = tempfile::tempdir().expect("a temporary folder");
        write(root.path(), "secret.txt", "secret");
        write(root.path(), "m/1/model.onnx", "");
        for path in ["../secret.txt", "/etc/hostname", "a/../../secret.txt"] {
            write(root.path(), "m/model.toml", &format!("labels = {path:?}"));
            let error = read(&root.path().join("m")).expect_err(path);
            assert!(matches!(error, StoreError::Outside { .. }), "{error}");
        }
        write(root.path(), "m/labels.txt", "one\ntwo \n");
        write(root.path(), "m/model.toml", "labels = \"labels.txt\"");
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!(model.labels, ["one", "two"]);
    }

    #[test]
    fn a_link_that_leads_out_of_the_folder_is_not_followed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        write(root.path(), "secret.txt", "secret");
        write(root.path(), "m/1/model.onnx", "");
        write(root.path(), "m/model.toml", "labels = \"labels.txt\"");
        std::os::unix::fs::symlink(root.path().join("secret.txt"), root.path().join("m/labels.txt")).expect("a link");
        let error = read(&root.path().join("m")).expect_err("it leads out");
        assert!(matches!(error, StoreError::Outside { .. }), "{error}");
    }

    #[test]
    fn an_export_is_a_model_of_version_one_and_what_a_person_wrote_counts_first() {
        let root = tempfile::tempdir().expect("a temporary folder");
        write(root.path(), "m/onnx/model.onnx", "");
        assert!(read(&root.path().join("m")).expect("reads").is_none(), "no config.json, no settings: no model");
        write(root.path(), "m/config.json", r#"{"architectures": ["X"]}"#);
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!((model.newest().number, model.newest().model.ends_with("m/onnx/model.onnx")), (1, true));
        write(root.path(), "m/config.json", "{");
        let error = read(&root.path().join("m")).expect_err("is broken").to_string();
        assert!(error.contains("m: config.json: "), "{error}");
        write(root.path(), "m/model.toml", "description = \"mine\"");
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!(model.settings.description.as_deref(), Some("mine"));
    }

    #[test]
    fn an_export_with_steps_makes_vectors_and_reads_no_file_outside_its_folder() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let steps = |path: &str| format!(r#"[{{"path": "{path}", "type": "sentence_transformers.models.Pooling"}}]"#);
        write(root.path(), "m/onnx/model.onnx", "");
        write(root.path(), "m/config.json", r#"{"architectures": ["BertModel"]}"#);
        write(root.path(), "m/modules.json", &steps("1_Pooling"));
        write(root.path(), "m/1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!((model.settings.task, model.settings.embed.pooling), (Task::Embed, crate::Pooling::Cls));
        write(root.path(), "1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
        write(root.path(), "m/modules.json", &steps("../1_Pooling"));
        let error = read(&root.path().join("m")).expect_err("it leads out").to_string();
        assert!(error.contains("m: modules.json") && error.contains("../1_Pooling"), "{error}");
    }

    #[test]
    fn a_language_model_is_asked_as_its_makers_recommend_unless_a_person_says_otherwise() {
        let root = tempfile::tempdir().expect("a temporary folder");
        write(root.path(), "m/onnx/model.onnx", "");
        write(root.path(), "m/config.json", r#"{"architectures": ["Qwen2ForCausalLM"]}"#);
        write(root.path(), "m/tokenizer.json", "{}");
        write(root.path(), "m/generation_config.json", r#"{"eos_token_id": [1, 2], "temperature": 0.7, "top_p": 0.8}"#);
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!(
            (model.settings.task, model.settings.chat.temperature, model.settings.chat.top_p),
            (Task::Chat, 0.7, 0.8)
        );
        write(root.path(), "m/model.toml", "task = \"chat\"");
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        assert_eq!(model.settings.chat, crate::Chat::default());
    }

    #[test]
    fn the_checksum_is_that_of_the_file() {
        let root = tempfile::tempdir().expect("a temporary folder");
        write(root.path(), "m/1/model.onnx", "abc");
        let model = read(&root.path().join("m")).expect("reads").expect("is a model");
        let sum = model.newest().sha256().expect("reads");
        // The first test vector of the standard, FIPS 180-4.
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
