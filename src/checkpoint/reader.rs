//! Reads one safetensors file while its bytes arrive. Memory: a piece as it came, and one gathered of smaller ones.

use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::cancel::CancelToken;
use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::json::looks_like_html;
use crate::checkpoint::names;
use crate::checkpoint::safetensors::{Header, TensorInfo};
use crate::checkpoint::source::Source;
use crate::checkpoint::stream::ByteStream;
use crate::{Error, Result};

/// The longest header that is read. The format allows 100 MB; SDXL's has less than one, and what is read of it takes several times its
/// bytes.
const MAX_HEADER: u64 = 32 << 20;
/// Bytes of the header's length, which come first.
const PREFIX: u64 = 8;
/// Smaller pieces are gathered up to this many bytes: what takes them apart works on whole rows of a tensor.
const GATHERED: usize = 1 << 20;
/// Pieces begin at multiples of this, in bytes of their tensor: elements are whole, and a GPU copies words.
const ALIGN: usize = 16;

/// A safetensors file whose header was read, and whose tensors come next.
#[derive(Debug)]
pub struct OpenFile {
    header: Rc<Header>,
    /// How many bytes come behind the file's header.
    data_bytes: u64,
    feed: Feed,
    expected: ExpectedFile,
}

impl OpenFile {
    /// Opens the weights of a component of `class`, and reads and checks their header. `expected` is what is known of
    /// the file beforehand; the hash is compared when all of it has been read.
    pub async fn open(
        source: &Source,
        path: &str,
        class: &str,
        mut expected: ExpectedFile,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let stream = cancel.guard(source.open(path, &expected)).await?;
        expected.sha256 = expected.sha256.or_else(|| stream.sha256());
        let place = source.locate(path);
        if let Some(len) = stream.len {
            expected.check_size(&place, len)?;
        }
        let len = stream.len;
        let mut feed = Feed::new(stream, place.clone());
        let not_one = |found: String| Error::Corrupt(format!("{place}: expected safetensors, found {found}"));

        let mut prefix = Vec::new();
        feed.take(PREFIX, Some(&mut prefix), cancel, &mut |_| ()).await?;
        if looks_like_html(&prefix) {
            return Err(not_one("HTML".into()));
        }
        if prefix == *b"version " {
            return Err(not_one("what looks like a Git LFS pointer".into()));
        }
        if let Some(format) = other_format(&prefix, path) {
            return Err(Error::Unsupported(format!(
                "{place}: expected safetensors, found {format}"
            )));
        }
        let Ok(prefix) = prefix.try_into() else {
            return Err(not_one(format!("a file of {} bytes", feed.received)));
        };
        let header_len = u64::from_le_bytes(prefix);
        let room = len
            .or(expected.size)
            .map_or(MAX_HEADER, |len| MAX_HEADER.min(len.saturating_sub(PREFIX)));
        if header_len > room {
            return Err(not_one(format!(
                "a header of {header_len} bytes where at most {room} are possible"
            )));
        }
        let mut header = Vec::new();
        if feed.take(header_len, Some(&mut header), cancel, &mut |_| ()).await? < header_len {
            return Err(feed.truncated(PREFIX + header_len));
        }
        let mut header = Header::parse(&place, &header)?;
        header.rename(|name| names::canonical(class, name).into_owned())?;
        let file_bytes = PREFIX.saturating_add(header_len).saturating_add(header.data_bytes());
        if let Some(len) = len.filter(|&len| len != file_bytes) {
            return Err(Error::Corrupt(format!(
                "{place}: expected {file_bytes} bytes by its header, found {len}"
            )));
        }
        expected.check_size(&place, file_bytes)?;
        Ok(Self {
            data_bytes: header.data_bytes(),
            header: Rc::new(header),
            feed,
            expected: ExpectedFile {
                size: Some(file_bytes),
                ..expected
            },
        })
    }

    /// What the header says.
    pub fn header(&self) -> &Rc<Header> {
        &self.header
    }

    /// The same file with another header in place of its own: with other names, or with a part of its tensors.
    #[must_use]
    pub(super) fn renamed(self, header: Rc<Header>) -> Self {
        Self { header, ..self }
    }

    /// The same file, hashed only if its hash is to be compared with one that is expected: for who has no use for it.
    #[must_use]
    pub(super) fn unhashed(mut self) -> Self {
        self.feed.sha256 = self.feed.sha256.filter(|_| self.expected.sha256.is_some());
        self
    }

    /// What is known of the file.
    pub fn expected(&self) -> &ExpectedFile {
        &self.expected
    }

    /// Says that what is in it is here already, and ends the download.
    pub fn skip(self) {
        self.feed.stream.skip();
    }

    /// How many bytes the whole file has.
    pub fn file_bytes(&self) -> u64 {
        self.expected.size.unwrap_or_default()
    }

    /// Hands the tensors that are `wanted` (by their names) to `sink`, in file order, each in pieces that come one after the
    /// other: the tensor, the piece's first byte in it (a multiple of 16), and the piece; the others' bytes are passed over.
    /// `arrived` hears of all bytes of the file. Gives the file's sha256, if whoever reads it hashed it.
    ///
    /// A file that is shorter or longer than its header says, or has another hash than expected, is
    /// [`Error::Corrupt`]; tensors may have gone to `sink` by then.
    pub async fn for_each_piece(
        self,
        cancel: &CancelToken,
        wanted: impl Fn(&str) -> bool,
        arrived: impl FnMut(u64),
        mut sink: impl FnMut(&TensorInfo, u64, &[u8]) -> Result<()>,
    ) -> Result<Option<[u8; 32]>> {
        let header = Rc::clone(&self.header);
        let wanted = header.tensors().iter().filter(|tensor| wanted(&tensor.name));
        let wanted: Vec<_> = wanted.map(|tensor| ((), tensor)).collect();
        self.read(cancel, &wanted, arrived, |(), tensor, start, piece| {
            sink(tensor, start, piece)
        })
        .await
    }

    /// The same for tensors that may be parts of the file's own, in the order of their bytes, each with the caller's mark. Of one
    /// that the file has transposed all is handed over at once.
    pub(super) async fn read<T: Copy>(
        self,
        cancel: &CancelToken,
        wanted: &[(T, &TensorInfo)],
        mut arrived: impl FnMut(u64),
        mut sink: impl FnMut(T, &TensorInfo, u64, &[u8]) -> Result<()>,
    ) -> Result<Option<[u8; 32]>> {
        let file_bytes = self.file_bytes();
        let Self {
            data_bytes,
            mut feed,
            expected,
            ..
        } = self;
        arrived(feed.received);
        let (mut gathered, mut at) = (Vec::new(), 0);
        for &(mark, tensor) in wanted {
            cancel.check()?;
            let between = tensor.start.checked_sub(at);
            let between = between.ok_or_else(|| Error::Internal(format!("{}: out of order", tensor.name)))?;
            let mut taken = feed.take(between, None, cancel, &mut arrived).await?;
            if tensor.transposed {
                let mut whole = Vec::new();
                taken += feed
                    .take(tensor.bytes(), Some(&mut whole), cancel, &mut arrived)
                    .await?;
                if whole.len() as u64 == tensor.bytes() {
                    sink(mark, tensor, 0, &transposed(tensor, &whole))?;
                }
            } else {
                let sink = |start, piece: &[u8]| sink(mark, tensor, start, piece);
                taken += feed
                    .pieces(tensor.bytes(), &mut gathered, cancel, &mut arrived, sink)
                    .await?;
            }
            at = tensor.end;
            if taken < between + tensor.bytes() {
                return Err(feed.truncated(file_bytes));
            }
        }
        let rest = data_bytes.saturating_sub(at);
        if feed.take(rest, None, cancel, &mut arrived).await? < rest {
            return Err(feed.truncated(file_bytes));
        }
        feed.take(1, None, cancel, &mut arrived).await?;
        if feed.received > file_bytes {
            let place = &feed.place;
            return Err(Error::Corrupt(format!(
                "{place}: expected {file_bytes} bytes by its header, found more"
            )));
        }
        let Some(sha256) = feed.sha256 else {
            let sha256 = feed.stream.sha256();
            let known = ExpectedFile { sha256, size: None };
            return Ok(known.hash());
        };
        let sha256 = sha256.finalize().into();
        expected.check_hash(&feed.place, &sha256)?;
        Ok(Some(sha256))
    }
}

/// What is said of pickles.
pub(super) const PICKLE: &str = "a pickle (.ckpt, .pt, .bin), which can run programs and is never opened";

/// Formats that are told apart by their first bytes, and are never read.
fn other_format(prefix: &[u8], path: &str) -> Option<&'static str> {
    let length = prefix.try_into().map_or(0, u64::from_le_bytes);
    match prefix {
        [b'G', b'G', b'U', b'F', ..] => Some("GGUF"),
        [b'P', b'K', 3, 4, ..] if path.to_ascii_lowercase().ends_with(".zip") => {
            Some("a ZIP archive: unpack it, and take what is in it")
        }
        // What PyTorch saves is a ZIP archive around a pickle.
        [b'P', b'K', 3, 4, ..] => Some(PICKLE),
        [0x80, 2..=5, ..] if length > MAX_HEADER => Some(PICKLE),
        [0x89, b'H', b'D', b'F', ..] => Some("HDF5"),
        _ => None,
    }
}

/// The bytes of a tensor that the file has transposed, as its shape says.
fn transposed(tensor: &TensorInfo, bytes: &[u8]) -> Vec<u8> {
    let [rows, columns] = [0, 1].map(|d| tensor.shape.get(d).copied().unwrap_or(1));
    let size = bytes.len().checked_div(rows * columns).unwrap_or(0);
    let mut out = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        for column in 0..columns {
            out.extend_from_slice(&bytes[(column * rows + row) * size..][..size]);
        }
    }
    out
}

/// A stream with what of it has arrived and is not yet used.
#[derive(Debug)]
struct Feed {
    stream: ByteStream,
    place: String,
    piece: Vec<u8>,
    used: usize,
    received: u64,
    /// Unless whoever reads the stream knows it.
    sha256: Option<Sha256>,
}

impl Feed {
    fn new(stream: ByteStream, place: String) -> Self {
        Self {
            sha256: (!stream.is_checked()).then(Sha256::new),
            stream,
            place,
            piece: Vec::new(),
            used: 0,
            received: 0,
        }
    }

    /// Moves the next `count` bytes to `into`, or passes over them. Gives how many there were: less only at the end.
    async fn take(
        &mut self,
        count: u64,
        mut into: Option<&mut Vec<u8>>,
        cancel: &CancelToken,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        let mut left = count;
        while left > 0 && self.fill(cancel, arrived).await? {
            let rest = self.rest(left);
            if let Some(into) = &mut into {
                into.extend_from_slice(rest);
            }
            let used = rest.len();
            self.used += used;
            left -= used as u64;
        }
        Ok(count - left)
    }

    /// Hands the next `count` bytes to `sink`, in pieces as large as they came, or gathered. Gives how many there were.
    async fn pieces(
        &mut self,
        count: u64,
        gathered: &mut Vec<u8>,
        cancel: &CancelToken,
        arrived: &mut dyn FnMut(u64),
        mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let mut done = 0;
        gathered.clear();
        loop {
            let left = count - done - gathered.len() as u64;
            if left == 0 || gathered.len() == GATHERED {
                sink(done, gathered)?;
                done += gathered.len() as u64;
                gathered.clear();
                if done == count {
                    return Ok(done);
                }
                continue;
            }
            if !self.fill(cancel, arrived).await? {
                return Ok(done + gathered.len() as u64);
            }
            let rest = self.rest(left);
            let used = if gathered.is_empty() && rest.len() as u64 == left {
                sink(done, rest)?;
                self.used += left as usize;
                return Ok(count);
            } else if gathered.is_empty() && rest.len() >= GATHERED {
                let used = rest.len() / ALIGN * ALIGN;
                sink(done, &rest[..used])?;
                done += used as u64;
                used
            } else {
                let used = rest.len().min(GATHERED - gathered.len());
                gathered.extend_from_slice(&rest[..used]);
                used
            };
            self.used += used;
        }
    }

    /// What of the piece at hand is not used, up to `most` bytes.
    fn rest(&self, most: u64) -> &[u8] {
        let rest = &self.piece[self.used..];
        &rest[..usize::try_from(most).map_or(rest.len(), |most| most.min(rest.len()))]
    }

    /// Waits for the next piece, if the one at hand is used up. Says whether there is one.
    async fn fill(&mut self, cancel: &CancelToken, arrived: &mut dyn FnMut(u64)) -> Result<bool> {
        if self.used == self.piece.len() {
            let Some(piece) = cancel.guard(self.stream.next()).await? else {
                return Ok(false);
            };
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(&piece);
            }
            self.received += piece.len() as u64;
            arrived(piece.len() as u64);
            (self.piece, self.used) = (piece, 0);
        }
        Ok(true)
    }

    fn truncated(&self, expected: u64) -> Error {
        let Self { place, received, .. } = self;
        Error::Corrupt(format!(
            "{place}: expected {expected} bytes, found {received}: the file is cut off"
        ))
    }
}
