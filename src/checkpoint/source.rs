//! Where a checkpoint's bytes come from.

use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::path::PathBuf;
use std::rc::Rc;

use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::stream::ByteStream;
#[cfg(target_arch = "wasm32")]
use crate::checkpoint::web::{self, Keeper};
use crate::{Error, Result};

/// Bytes that [`Source::Memory`] hands over at once.
const MEMORY_CHUNK: usize = 1 << 16;

/// A readable set of files, each known by its path relative to the checkpoint's folder (`"unet/config.json"`).
/// Clones are cheap, and read the same files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Files in memory.
    Memory {
        /// The contents by path.
        files: Rc<BTreeMap<String, Vec<u8>>>,
        /// How many bytes a stream hands over at once.
        chunk: usize,
        /// Whether a stream says its length beforehand; a web server may not.
        sized: bool,
    },
    /// A folder of the file system.
    #[cfg(not(target_arch = "wasm32"))]
    Dir(PathBuf),
    /// A folder or a file of a web server, by way of the keeper; and one load of it, once that has begun.
    #[cfg(target_arch = "wasm32")]
    Http(BaseUrl, Keeper, Option<Rc<web::Session>>),
    /// What a person picked or dropped. The files are read in place, not copied.
    #[cfg(target_arch = "wasm32")]
    Files(Rc<Picked<web_sys::File>>),
}

impl Source {
    /// Files in memory.
    pub fn memory(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self::Memory {
            files: Rc::new(files.into_iter().collect()),
            chunk: MEMORY_CHUNK,
            sized: true,
        }
    }

    /// What a web server has there.
    #[cfg(target_arch = "wasm32")]
    pub fn http(url: BaseUrl, keeper: Keeper) -> Self {
        Self::Http(url, keeper, None)
    }

    /// Picked files with the paths that the browser gives them. The folder that holds `model_index.json` is the root,
    /// and files outside of it are left out.
    #[cfg(target_arch = "wasm32")]
    pub fn files(files: impl IntoIterator<Item = (String, web_sys::File)>) -> Self {
        Self::Files(Rc::new(rooted(files.into_iter().collect())))
    }

    /// The same source for one load, which is told how it ends by [`end`](Self::end).
    #[must_use]
    pub fn begin(&self) -> Self {
        match self {
            #[cfg(target_arch = "wasm32")]
            Self::Http(url, keeper, _) => {
                let session = web::Session::begin(keeper, url.label());
                Self::Http(url.clone(), keeper.clone(), Some(Rc::new(session)))
            }
            _ => self.clone(),
        }
    }

    /// How a load ended: with a checkpoint's id, name and bytes, or with an error. A keeper keeps what was good.
    ///
    /// # Errors
    /// Those of the keeper.
    pub async fn end(&self, loaded: Result<(&str, &str, u64), &Error>) -> Result<()> {
        match (self, loaded) {
            #[cfg(target_arch = "wasm32")]
            (Self::Http(url, _, Some(session)), Ok((id, name, bytes))) => {
                session.commit(id, name, url.label(), bytes).await
            }
            #[cfg(target_arch = "wasm32")]
            (Self::Http(_, _, Some(session)), Err(error)) => {
                session.abort(error.code()).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The same for a load of a part of a checkpoint, a LoRA or an autoencoder, which is kept for itself by its address: with its
    /// name and bytes, or with an error.
    ///
    /// # Errors
    /// Those of the keeper.
    pub async fn end_part(&self, address: &str, loaded: Result<(&str, u64), &Error>) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        let _ = address;
        match (self, loaded) {
            #[cfg(target_arch = "wasm32")]
            (Self::Http(_, _, Some(session)), Ok((name, bytes))) => session.commit_part(name, address, bytes).await,
            (_, Ok(_)) => Ok(()),
            (_, Err(error)) => self.end(Err(error)).await,
        }
    }

    /// What a person should know of it.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            #[cfg(target_arch = "wasm32")]
            Self::Files(picked) => picked.warning().into_iter().collect(),
            #[cfg(target_arch = "wasm32")]
            Self::Http(_, _, Some(session)) => session.warnings(),
            _ => Vec::new(),
        }
    }

    /// What a person would call it: the URL (without its query, which may hold a token), a repository, the folder's path.
    pub fn label(&self) -> String {
        match self {
            Self::Memory { .. } => "memory".into(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Dir(path) => path.display().to_string(),
            #[cfg(target_arch = "wasm32")]
            Self::Http(url, ..) => url.label().into(),
            #[cfg(target_arch = "wasm32")]
            Self::Files(_) => "picked files".into(),
        }
    }

    /// Where a file is, for messages.
    pub fn locate(&self, path: &str) -> String {
        match self {
            #[cfg(target_arch = "wasm32")]
            Self::Http(url, ..) => url.locate(path),
            _ => path.into(),
        }
    }

    /// The paths of all its files, where they are known without asking.
    pub fn paths(&self) -> Option<Vec<&str>> {
        match self {
            Self::Memory { files, .. } => Some(files.keys().map(String::as_str).collect()),
            #[cfg(target_arch = "wasm32")]
            Self::Files(picked) => Some(picked.files.keys().map(String::as_str).collect()),
            _ => None,
        }
    }

    /// Reads a whole small file, of which this is known. One that is not there is [`Error::NotFound`]; one longer than `limit` bytes is
    /// [`Error::Corrupt`].
    pub async fn read(&self, path: &str, limit: u64, expected: &ExpectedFile) -> Result<Vec<u8>> {
        let too_long = |found: String| {
            Error::Corrupt(format!(
                "{}: expected at most {limit} bytes, found {found}",
                self.locate(path)
            ))
        };
        let mut stream = self.open(path, expected).await?;
        if let Some(len) = stream.len.filter(|&len| len > limit) {
            return Err(too_long(len.to_string()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(too_long("more".into()));
            }
        }
        if !stream.is_checked() {
            expected.check(&self.locate(path), &bytes)?;
        }
        Ok(bytes)
    }

    /// Opens a file for reading from its start. Not every source checks what is known of it: [`ByteStream::is_checked`].
    pub async fn open(&self, path: &str, expected: &ExpectedFile) -> Result<ByteStream> {
        check_path(path)?;
        #[cfg(not(target_arch = "wasm32"))]
        let _ = expected;
        match self {
            Self::Memory { files, chunk, sized } => match files.contains_key(path) {
                true => Ok(ByteStream::memory(Rc::clone(files), path, *chunk, *sized)),
                false => Err(Error::NotFound(format!("{path}: no such file in memory"))),
            },
            #[cfg(not(target_arch = "wasm32"))]
            Self::Dir(folder) => ByteStream::file(&folder.join(path)),
            #[cfg(target_arch = "wasm32")]
            Self::Http(url, _, session) => {
                let session = session
                    .as_ref()
                    .ok_or_else(|| Error::Internal("the load has not begun".into()))?;
                let place = self.locate(path);
                let url = url
                    .join(path)
                    .ok_or_else(|| Error::NotFound(format!("{path}: not in {place}, which is one file")))?;
                let file = session.open(&url, &place, expected).await?;
                Ok(ByteStream::from(file))
            }
            #[cfg(target_arch = "wasm32")]
            Self::Files(picked) => match picked.files.get(path) {
                Some(file) => Ok(web::BlobReader::new(file.clone(), path).into()),
                None => Err(Error::NotFound(format!("{path}: not among the picked files"))),
            },
        }
    }
}

/// Paths may come from a file (the index of a sharded checkpoint), and may not lead out of its folder.
fn check_path(path: &str) -> Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    match path.split('/').all(plain) {
        true => Ok(()),
        false => Err(Error::Corrupt(format!(
            "{path:?}: expected a path inside of the checkpoint's folder"
        ))),
    }
}

/// What a web server has: a folder, whose URL is split where a file's path goes in, or one file.
#[cfg(any(test, target_arch = "wasm32"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Without its query: that of the folder, with a slash at its end, or that of the file.
    url: String,
    query: String,
    /// The file's path, if it is one.
    file: Option<String>,
    /// What messages call `url`.
    place: String,
    /// What a person would call it.
    label: String,
}

#[cfg(any(test, target_arch = "wasm32"))]
impl BaseUrl {
    /// The folder at an absolute URL. Its query string is kept and sent with every file; the last slash may be left out.
    pub fn folder(url: &str) -> Self {
        let mut base = Self::split(url);
        if !base.url.ends_with('/') {
            base.url.push('/');
        }
        base.called(None, None)
    }

    /// The file at an absolute URL, which goes by the name `path`.
    pub fn file(url: &str, path: String) -> Self {
        Self {
            file: Some(path),
            ..Self::split(url)
        }
        .called(None, None)
    }

    fn split(url: &str) -> Self {
        let url = url.split('#').next().unwrap_or_default();
        let (url, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        Self {
            url: url.into(),
            query: query.into(),
            file: None,
            place: String::new(),
            label: String::new(),
        }
    }

    /// The same, called `place` in messages (before a file's path, if it is a folder) and `label` by a person; its URL without
    /// its query, which may hold a token, where nothing is given.
    #[must_use]
    pub fn called(self, place: Option<String>, label: Option<String>) -> Self {
        let place = place.unwrap_or_else(|| self.url.clone());
        Self {
            label: label.unwrap_or_else(|| place.clone()),
            place,
            ..self
        }
    }

    /// What a person would call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What messages call a file of it.
    pub fn locate(&self, path: &str) -> String {
        match &self.file {
            Some(_) => self.place.clone(),
            None => format!("{}{path}", self.place),
        }
    }

    /// The URL of a file, if it can be there.
    pub fn join(&self, path: &str) -> Option<String> {
        match &self.file {
            Some(file) if file != path => None,
            Some(_) => Some(format!("{}{}", self.url, self.query)),
            None => Some(format!("{}{}{}", self.url, encoded(path), self.query)),
        }
    }
}

/// A path as it stands in a URL.
#[cfg(any(test, target_arch = "wasm32"))]
fn encoded(path: &str) -> String {
    let mut url = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => url.push(byte as char),
            _ if byte.is_ascii_alphanumeric() => url.push(byte as char),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// Picked files by their paths in the folder that is loaded.
#[cfg(any(test, target_arch = "wasm32"))]
#[derive(Debug)]
pub struct Picked<T> {
    files: BTreeMap<String, T>,
    /// The checkpoints' folders: the one that is loaded, and others that aren't.
    checkpoints: Vec<String>,
}

#[cfg(any(test, target_arch = "wasm32"))]
impl<T> Picked<T> {
    fn warning(&self) -> Option<String> {
        let (taken, others) = self.checkpoints.split_first()?;
        let next = others.first()?;
        let more = match others.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "picked files: expected one model_index.json, found {}: {taken:?} was loaded, {next:?}{more} was not",
            self.checkpoints.len()
        ))
    }
}

/// Makes the folder that holds `model_index.json` (the outermost, if there are several) the root; without one, the
/// folder that is common to all.
#[cfg(any(test, target_arch = "wasm32"))]
fn rooted<T>(files: BTreeMap<String, T>) -> Picked<T> {
    let folder = |path: &str| path[..path.rfind('/').map_or(0, |slash| slash + 1)].to_owned();
    let index = files.keys().map(|path| path.trim_start_matches('/'));
    let index = index.filter(|path| *path == "model_index.json" || path.ends_with("/model_index.json"));
    let mut checkpoints: Vec<String> = index.map(folder).collect();
    checkpoints.sort_by_key(|folder| folder.matches('/').count());
    let root = match checkpoints.first() {
        Some(folder) => folder.clone(),
        None => common_folder(files.keys().map(|path| folder(path.trim_start_matches('/')))),
    };
    let inside = |(path, file): (String, T)| Some((path.trim_start_matches('/').strip_prefix(&root)?.to_owned(), file));
    Picked {
        files: files.into_iter().filter_map(inside).collect(),
        checkpoints,
    }
}

#[cfg(any(test, target_arch = "wasm32"))]
fn common_folder(folders: impl Iterator<Item = String>) -> String {
    let common = folders.reduce(|a, b| {
        let parts = a.split_inclusive('/').zip(b.split_inclusive('/'));
        parts.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    common.unwrap_or_default()
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_its_query() {
        let url = BaseUrl::folder("https://host/a/b?token=1#part");
        assert_eq!(url.label(), "https://host/a/b/");
        assert_eq!(
            url.join("unet/config.json").as_deref(),
            Some("https://host/a/b/unet/config.json?token=1")
        );
        assert_eq!(url.locate("unet/config.json"), "https://host/a/b/unet/config.json");
        assert_eq!(
            BaseUrl::folder("https://host/a/").join("é?#%.json").as_deref(),
            Some("https://host/a/%C3%A9%3F%23%25.json")
        );
    }

    #[test]
    fn a_file_goes_by_its_own_url() {
        let url = BaseUrl::file("https://host/a/(b)%20c?token=1", "b c.safetensors".into());
        assert_eq!(url.label(), "https://host/a/(b)%20c");
        assert_eq!(url.locate("b c.safetensors"), url.label());
        assert_eq!(
            url.join("b c.safetensors").as_deref(),
            Some("https://host/a/(b)%20c?token=1")
        );
        assert_eq!(url.join("model_index.json"), None);
    }

    #[test]
    fn a_url_may_be_called_something_else() {
        let (place, label) = (Some("hf:org/name@v1/".into()), Some("hf:org/name@v1".into()));
        let url = BaseUrl::folder("https://hub/org/name/resolve/0123/").called(place, label);
        assert_eq!(url.label(), "hf:org/name@v1");
        assert_eq!(url.locate("unet/config.json"), "hf:org/name@v1/unet/config.json");
        assert_eq!(
            url.join("unet/config.json").as_deref(),
            Some("https://hub/org/name/resolve/0123/unet/config.json")
        );
    }

    #[test]
    fn picked_files_are_rooted_where_model_index_is() {
        let paths_of = |paths: &[&str]| -> Vec<String> {
            rooted(paths.iter().map(|path| (path.to_string(), ())).collect())
                .files
                .into_keys()
                .collect()
        };
        let inside = ["model_index.json", "unet/config.json"];
        assert_eq!(paths_of(&["a/model_index.json", "a/unet/config.json", "b/x"]), inside);
        assert_eq!(
            paths_of(&[
                "/a/b/model_index.json",
                "/a/b/unet/config.json",
                "/a/b/old/model_index.json"
            ])[0],
            inside[0]
        );
        assert_eq!(paths_of(&["model_index.json", "unet/config.json"]), inside);
        assert_eq!(paths_of(&["a/b/x.json", "a/b/c/y.json"]), ["c/y.json", "x.json"]);
        assert_eq!(paths_of(&[]), [""; 0]);
    }

    #[test]
    fn more_than_one_checkpoint_among_picked_files_is_told() {
        let warning = |paths: &[&str]| rooted(paths.iter().map(|path| (path.to_string(), ())).collect()).warning();
        assert_eq!(warning(&["a/model_index.json", "a/unet/config.json"]), None);
        assert_eq!(warning(&["a/config.json"]), None);
        let two = warning(&["a/model_index.json", "a/old/model_index.json"]).unwrap();
        assert!(two.contains("found 2: \"a/\" was loaded, \"a/old/\" was not"), "{two}");
        let four = warning(&[
            "z/a/model_index.json",
            "c/model_index.json",
            "b/model_index.json",
            "d/model_index.json",
        ]);
        let four = four.unwrap();
        assert!(
            four.contains("found 4: \"b/\" was loaded, \"c/\" and 2 more was not"),
            "{four}"
        );
    }

    #[test]
    fn no_path_leads_out() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a//b",
            "a/",
            "https://host/x",
            "a\\..\\b",
        ] {
            let error = pollster::block_on(Source::memory([]).open(path, &ExpectedFile::default())).unwrap_err();
            assert_eq!(error.code(), "corrupt", "{path}");
        }
    }

    #[test]
    fn a_small_file_is_read_whole_and_a_long_one_refused() {
        let files = Rc::new(BTreeMap::from([("a".to_owned(), (0..100).collect::<Vec<u8>>())]));
        let source = Source::Memory {
            files,
            chunk: 7,
            sized: false,
        };
        assert_eq!(
            pollster::block_on(source.read("a", 100, &ExpectedFile::default())),
            Ok((0..100).collect())
        );
        assert_eq!(
            pollster::block_on(source.read("a", 99, &ExpectedFile::default()))
                .unwrap_err()
                .code(),
            "corrupt"
        );
        assert_eq!(
            pollster::block_on(source.read("b", 99, &ExpectedFile::default()))
                .unwrap_err()
                .code(),
            "not-found"
        );
    }

    #[test]
    fn a_folder_is_read() {
        let source = Source::Dir(env!("CARGO_MANIFEST_DIR").into());
        assert_eq!(
            pollster::block_on(source.read("src/cancel.rs", 1 << 20, &ExpectedFile::default())),
            Ok(include_bytes!("../cancel.rs").to_vec())
        );
        let error = pollster::block_on(source.read("src/no.rs", 1, &ExpectedFile::default())).unwrap_err();
        assert_eq!(error.code(), "not-found");
        assert!(error.message().contains("no.rs"));
    }
}
