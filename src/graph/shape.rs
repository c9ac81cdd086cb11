//! Shapes of activations: the last dimension is the channels, the first the batch.

use std::fmt;

/// The type of a value's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Activations.
    F32,
    /// Activations of a plan for a device that keeps them so.
    F16,
    /// Token ids.
    U32,
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 | Self::U32 => 4,
        }
    }

    /// Bytes of so many.
    pub fn bytes(self, len: usize) -> u64 {
        len as u64 * self.size() as u64
    }

    /// Words of four bytes that so many take.
    pub fn words(self, len: usize) -> usize {
        len.div_ceil(4 / self.size())
    }
}

/// The dimensions of a value, outermost first: `[batch, height, width, channels]`, `[batch, tokens, channels]`, ….
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A shape of these dimensions.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// The number of elements; saturates rather than overflows.
    #[expect(clippy::len_without_is_empty, reason = "a shape is no collection")]
    pub fn len(&self) -> usize {
        product(&self.0)
    }

    /// The first dimension.
    pub fn batch(&self) -> usize {
        self.0.first().copied().unwrap_or(1)
    }

    /// The last dimension.
    pub fn channels(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// All that is not channels: the rows of the matrix `[rows, channels]` that this value is in memory. Saturates as well.
    pub fn rows(&self) -> usize {
        self.0.split_last().map_or(1, |(_, d)| product(d))
    }

    /// What lies between batch and channels: pixels of an image, tokens of a text. Saturates as well.
    pub fn tokens(&self) -> usize {
        match self.0.as_slice() {
            [_, middle @ .., _] => product(middle),
            _ => 1,
        }
    }

    /// `[batch, height, width, channels]` of an image; `None` for other ranks.
    pub fn image(&self) -> Option<[usize; 4]> {
        self.0.as_slice().try_into().ok()
    }

    /// The same shape with another number of channels.
    #[must_use]
    pub fn with_channels(&self, channels: usize) -> Self {
        let mut dims = self.0.clone();
        if let Some(last) = dims.last_mut() {
            *last = channels;
        }
        Self(dims)
    }
}

/// Saturates rather than overflows.
pub(super) fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |n, &d| n.saturating_mul(d))
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}
