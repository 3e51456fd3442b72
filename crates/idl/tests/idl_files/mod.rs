//! Reads the part of the Thrift language that `idl/` uses: enough to compare declarations, no more.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) requiredness: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) has_default: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Method {
    pub(crate) oneway: bool,
    pub(crate) reply: String,
    pub(crate) arguments: BTreeMap<i32, Field>,
    pub(crate) throws: BTreeMap<i32, Field>,
}

/// The declarations of all files, by `file.Name`.
#[derive(Debug, Default)]
pub(crate) struct Idl {
    /// Structs, unions and exceptions; the word is which.
    pub(crate) structs: BTreeMap<String, (String, BTreeMap<i32, Field>)>,
    pub(crate) enums: BTreeMap<String, BTreeMap<i32, String>>,
    /// By service and method name.
    pub(crate) services: BTreeMap<String, BTreeMap<String, Method>>,
}

/// The folder `idl` of the repository.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../idl")
}

impl Idl {
    pub(crate) fn read(folder: &Path) -> Self {
        let mut idl = Self::default();
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "thrift") {
                let file = path.file_stem().unwrap().to_string_lossy().into_owned();
                idl.add(&file, &std::fs::read_to_string(&path).unwrap());
                files += 1;
            }
        }
        assert!(files > 0, "no IDL in {}", folder.display());
        idl
    }

    pub(crate) fn parse(file: &str, text: &str) -> Self {
        let mut idl = Self::default();
        idl.add(file, text);
        idl
    }

    fn add(&mut self, file: &str, text: &str) {
        let mut tokens = Tokens::of(file, text);
        while let Some(word) = tokens.next() {
            match word.as_str() {
                "include" => drop(tokens.word()),
                "namespace" => drop((tokens.word(), tokens.word())),
                "struct" | "union" | "exception" => {
                    let name = tokens.qualified();
                    tokens.expect("{");
                    let fields = tokens.fields("}");
                    self.structs.insert(name, (word, fields));
                }
                "enum" => {
                    let name = tokens.qualified();
                    let values = tokens.values();
                    self.enums.insert(name, values);
                }
                "service" => {
                    let name = tokens.qualified();
                    let methods = tokens.methods();
                    self.services.insert(name, methods);
                }
                other => panic!("{file}.thrift: no declaration begins with {other}"),
            }
        }
    }
}

struct Tokens {
    file: String,
    left: std::iter::Peekable<std::vec::IntoIter<String>>,
}

impl Tokens {
    fn of(file: &str, text: &str) -> Self {
        let text = without_comments(text);
        let mut words = Vec::new();
        let mut word = String::new();
        for letter in text.chars() {
            if letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-' | '"') {
                word.push(letter);
                continue;
            }
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if !letter.is_whitespace() && letter != ',' && letter != ';' {
                words.push(letter.to_string());
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        Self { file: file.to_owned(), left: words.into_iter().peekable() }
    }

    fn next(&mut self) -> Option<String> {
        self.left.next()
    }

    fn word(&mut self) -> String {
        self.next().unwrap_or_else(|| panic!("{}.thrift ends inside a declaration", self.file))
    }

    fn expect(&mut self, word: &str) {
        let found = self.word();
        assert_eq!(found, word, "{}.thrift", self.file);
    }

    fn eat(&mut self, word: &str) -> bool {
        self.left.next_if(|next| next == word).is_some()
    }

    fn number(&mut self) -> i32 {
        let word = self.word();
        word.parse().unwrap_or_else(|_| panic!("{}.thrift: {word} is no number", self.file))
    }

    fn qualified(&mut self) -> String {
        let name = self.word();
        format!("{}.{name}", self.file)
    }

    /// A type; names without a file get this one's.
    fn kind(&mut self) -> String {
        let word = self.word();
        match word.as_str() {
            "list" | "set" | "map" => {
                let mut kind = format!("{word}<");
                self.expect("<");
                kind += &self.kind();
                while !self.eat(">") {
                    kind += ",";
                    kind += &self.kind();
                }
                kind + ">"
            }
            "bool" | "byte" | "i8" | "i16" | "i32" | "i64" | "double" | "string" | "binary" | "void" => word,
            name if name.contains('.') => word,
            name => format!("{}.{name}", self.file),
        }
    }

    fn fields(&mut self, end: &str) -> BTreeMap<i32, Field> {
        let mut fields = BTreeMap::new();
        while !self.eat(end) {
            let id = self.number();
            self.expect(":");
            let requiredness = ["required", "optional"].into_iter().find(|word| self.eat(word)).unwrap_or("default");
            let kind = self.kind();
            let name = self.word();
            let has_default = self.eat("=");
            if has_default {
                self.word();
            }
            let field = Field { requiredness: requiredness.to_owned(), kind, name, has_default };
            assert!(fields.insert(id, field).is_none(), "{}.thrift: id {id} is there twice", self.file);
        }
        fields
    }

    fn values(&mut self) -> BTreeMap<i32, String> {
        let mut values = BTreeMap::new();
        self.expect("{");
        while !self.eat("}") {
            let name = self.word();
            self.expect("=");
            assert!(values.insert(self.number(), name).is_none(), "{}.thrift: a value is there twice", self.file);
        }
        values
    }

    fn methods(&mut self) -> BTreeMap<String, Method> {
        let mut methods = BTreeMap::new();
        self.expect("{");
        while !self.eat("}") {
            let oneway = self.eat("oneway");
            let reply = self.kind();
            let name = self.word();
            self.expect("(");
            let arguments = self.fields(")");
            let throws = if self.eat("throws") {
                self.expect("(");
                self.fields(")")
            } else {
                BTreeMap::new()
            };
            methods.insert(name, Method { oneway, reply, arguments, throws });
        }
        methods
    }
}

fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    loop {
        let starts = [("/*", "*/"), ("//", "\n"), ("#", "\n")];
        let first = starts.into_iter().filter_map(|(open, close)| Some((rest.find(open)?, open, close))).min();
        let Some((at, open, close)) = first else { return kept + rest };
        kept += &rest[..at];
        kept.push(' ');
        rest = &rest[at + open.len()..];
        rest = rest.find(close).map_or("", |end| &rest[end + close.len()..]);
    }
}
