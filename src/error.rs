//! One error type for the whole crate. Each variant has a stable code that JavaScript sees as `TintypeError.code`.

use std::fmt;

/// A result with the crate's own [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. The message names the file, the tensor or the option, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An option, prompt, size or seed that the caller gave is not usable.
    InvalidArgument(String),
    /// The network failed, or the host answered with an error other than 404.
    Network(String),
    /// A file or an entry that should be there is not.
    NotFound(String),
    /// A file is damaged, or is not what it says it is.
    Corrupt(String),
    /// A well-formed file or a known option asks for something that is not implemented.
    Unsupported(String),
    /// The device, or wasm's address space, has not enough memory.
    OutOfMemory(String),
    /// The browser's storage quota is too small.
    Quota(String),
    /// The GPU device was lost.
    DeviceLost(String),
    /// The caller aborted the operation.
    Cancelled(String),
    /// A fault of ours.
    Internal(String),
}

impl Error {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "invalid-argument",
            Self::Network(_) => "network",
            Self::NotFound(_) => "not-found",
            Self::Corrupt(_) => "corrupt",
            Self::Unsupported(_) => "unsupported",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::Quota(_) => "quota",
            Self::DeviceLost(_) => "device-lost",
            Self::Cancelled(_) => "cancelled",
            Self::Internal(_) => "internal",
        }
    }

    /// The error of a code; a code that is none is a fault of ours.
    pub fn from_code(code: &str, message: String) -> Self {
        let kinds = [
            Self::InvalidArgument,
            Self::Network,
            Self::NotFound,
            Self::Corrupt,
            Self::Unsupported,
            Self::OutOfMemory,
            Self::Quota,
            Self::DeviceLost,
            Self::Cancelled,
        ];
        let found = kinds.iter().find(|kind| kind(String::new()).code() == code);
        found.unwrap_or(&(Self::Internal as fn(String) -> Self))(message)
    }

    /// The message without the code.
    pub fn message(&self) -> &str {
        match self {
            Self::InvalidArgument(m)
            | Self::Network(m)
            | Self::NotFound(m)
            | Self::Corrupt(m)
            | Self::Unsupported(m)
            | Self::OutOfMemory(m)
            | Self::Quota(m)
            | Self::DeviceLost(m)
            | Self::Cancelled(m)
            | Self::Internal(m) => m,
        }
    }

    /// The same error with `place: ` before its message, for a caller that knows the file or the component.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        match &mut self {
            Self::InvalidArgument(m)
            | Self::Network(m)
            | Self::NotFound(m)
            | Self::Corrupt(m)
            | Self::Unsupported(m)
            | Self::OutOfMemory(m)
            | Self::Quota(m)
            | Self::DeviceLost(m)
            | Self::Cancelled(m)
            | Self::Internal(m) => *m = format!("{place}: {m}"),
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.message())
    }
}

impl std::error::Error for Error {}
