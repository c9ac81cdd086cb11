//! Memory on the GPU. What is dropped here is freed at once: in a browser, a wgpu buffer that is merely dropped is not.

use super::Webgpu;
use super::device::{Device, is_full};
use crate::error::{Error, Result};
use futures_channel::oneshot;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static OBJECTS: AtomicU64 = AtomicU64::new(0);

/// Buffers, bind groups and pipelines that were ever made, on every device.
pub fn objects() -> u64 {
    OBJECTS.load(Ordering::Relaxed)
}

/// Counts one more of [`objects`].
pub(super) fn count_object() {
    OBJECTS.fetch_add(1, Ordering::Relaxed);
}

/// Bytes of all GPU buffers that there are, on every device.
pub fn gpu_bytes() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// A GPU buffer, and a number by which what refers to it is found.
struct Memory {
    buffer: wgpu::Buffer,
    id: u64,
    len: usize,
    /// Where it is given back, if that is counted.
    left: Option<Rc<Cell<u64>>>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(left) = &self.left {
            left.set(left.get() + self.buffer.size());
        }
        BYTES.fetch_sub(self.buffer.size(), Ordering::Relaxed);
        self.buffer.destroy();
    }
}

/// A buffer of four-byte elements, shared by who holds it; or of 16-bit floats, which can be read back, and nothing else.
#[derive(Clone)]
pub struct Buffer {
    memory: Rc<Memory>,
    halves: bool,
}

/// Refuses what no buffer can hold.
pub(super) fn check_size(device: &Device, what: &str, bytes: u64) -> Result<()> {
    let limits = &device.limits;
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if bytes > most {
        return Err(Error::OutOfMemory(format!(
            "{what} needs {bytes} bytes; this GPU takes {most} in one piece"
        )));
    }
    Ok(())
}

impl Buffer {
    /// A storage buffer of `len` elements, and a few more up to a multiple of four. Zeros.
    pub(super) fn new(device: &Device, label: &str, len: usize) -> Result<Self> {
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        Self::with_usage(device, label, len, storage)
    }

    /// A uniform buffer of `len` elements.
    pub(super) fn uniform(device: &Device, label: &str, len: usize) -> Result<Self> {
        Self::with_usage(
            device,
            label,
            len,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        )
    }

    pub(super) fn with_usage(device: &Device, label: &str, len: usize, usage: wgpu::BufferUsages) -> Result<Self> {
        let size = (len as u64).max(1).next_multiple_of(4) * 4;
        check_size(device, label, size)?;
        let left = device.left.clone();
        if let Some(left) = &left {
            left.set(left.get().checked_sub(size).ok_or_else(is_full)?);
        }
        let descriptor = wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        };
        let buffer = device.device.create_buffer(&descriptor);
        BYTES.fetch_add(size, Ordering::Relaxed);
        count_object();
        Ok(Self {
            memory: Rc::new(Memory {
                buffer,
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                len,
                left,
            }),
            halves: false,
        })
    }

    /// The same memory, as 16-bit floats.
    pub(super) fn in_halves(&self) -> Self {
        let memory = Rc::clone(&self.memory);
        Self { memory, halves: true }
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.memory.buffer
    }

    /// A number that no other buffer has.
    pub(super) fn id(&self) -> u64 {
        self.memory.id
    }

    /// Refuses what is in 16-bit floats.
    pub(super) fn check_words(&self) -> Result<()> {
        match self.halves {
            true => Err(Error::Internal("16-bit floats inside of a plan are only read".into())),
            false => Ok(()),
        }
    }

    /// Words of four bytes.
    pub(super) fn len(&self) -> usize {
        self.memory.len
    }

    /// Writes whole elements from element `offset` on.
    ///
    /// # Errors
    /// [`Error::Internal`] for what would reach beyond the buffer.
    pub(super) fn write(&self, device: &Device, offset: usize, bytes: &[u8]) -> Result<()> {
        self.write_bytes(device, offset as u64 * 4, bytes)
    }

    /// Writes whole elements from byte `start` on.
    ///
    /// # Errors
    /// [`Error::Internal`] for what would reach beyond the buffer, or is no whole elements.
    pub(super) fn write_bytes(&self, device: &Device, start: u64, bytes: &[u8]) -> Result<()> {
        self.check_words()?;
        // Beyond this, a browser throws and wgpu panics.
        let whole = bytes.len().is_multiple_of(4) && start.is_multiple_of(4);
        if !whole || start.saturating_add(bytes.len() as u64) > self.memory.buffer.size() {
            return Err(Error::Internal(format!(
                "{} bytes at {start} of a buffer of {}",
                bytes.len(),
                self.memory.buffer.size()
            )));
        }
        if !bytes.is_empty() {
            device.queue.write_buffer(&self.memory.buffer, start, bytes);
        }
        Ok(())
    }
}

impl Webgpu {
    pub(in crate::executor) async fn buffer(&self, len: usize) -> Result<Buffer> {
        let made = self.device.guarded(|| Buffer::new(&self.device, "a buffer", len)).await;
        made.map_err(|e| e.at(format!("a buffer of {len} elements")))
    }

    pub(in crate::executor) fn fill(&self, buffer: &Buffer, offset: usize, len: usize, data: &[f32]) -> Result<()> {
        if data.len() != len {
            return Err(Error::Internal(format!("{} values for a range of {len}", data.len())));
        }
        buffer.write(&self.device, offset, bytemuck::cast_slice(data))
    }

    /// Reads a range back: there is no other way than to copy it and to wait.
    pub(in crate::executor) async fn read(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<f32>> {
        if !buffer.halves {
            let words = self.read_words(buffer, offset, len).await?;
            return Ok(words.into_iter().map(f32::from_bits).collect());
        }
        let (first, end) = (offset / 2, offset.saturating_add(len).div_ceil(2));
        let words = self.read_words(buffer, first, end - first).await?;
        let halves = words.into_iter().flat_map(|word| [word as u16, (word >> 16) as u16]);
        let floats = halves.map(|bits| half::f16::from_bits(bits).to_f32());
        Ok(floats.skip(offset % 2).take(len).collect())
    }

    pub(super) async fn read_words(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u32>> {
        if offset.checked_add(len).is_none_or(|end| end > buffer.len()) {
            return Err(Error::Internal(format!(
                "{len} elements at {offset} of a buffer of {}",
                buffer.len()
            )));
        }
        if len == 0 {
            return Ok(Vec::new());
        }
        let device = &self.device;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = device
            .guarded(|| Buffer::with_usage(device, "what is read", len, usage))
            .await?;
        let mut encoder = device.device.create_command_encoder(&Default::default());
        let size = len as u64 * 4;
        encoder.copy_buffer_to_buffer(buffer.raw(), offset as u64 * 4, staging.raw(), 0, size);
        device.send(encoder.finish());
        let (tell, mapped) = oneshot::channel();
        let slice = staging.raw().slice(..size);
        slice.map_async(wgpu::MapMode::Read, move |result| {
            let _ = tell.send(result);
        });
        device.drive(None)?;
        let mapped = mapped.await;
        device.check()?;
        match mapped {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Error::DeviceLost("the GPU's memory cannot be read".into())),
        }
        let range = slice
            .get_mapped_range()
            .map_err(|e| Error::Internal(format!("WebGPU: {e}")))?;
        let values = range
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        drop(range);
        staging.raw().unmap();
        Ok(values)
    }
}
