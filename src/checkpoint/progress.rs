//! How far a load is.

use std::cell::{Cell, RefCell};

/// One report of a load's progress.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is being done: `"open"` (configurations and headers) or `"weights"`.
    pub phase: &'static str,
    /// The file that is read, relative to the checkpoint's folder; empty in the last report.
    pub file: String,
    /// Bytes of weights' files loaded so far.
    pub loaded_bytes: u64,
    /// Bytes of all weights' files; 0 while `phase` is `"open"`.
    pub total_bytes: u64,
    /// From 0 to 1, over all of it.
    pub fraction: f64,
}

/// Adds up the bytes of one load and reports them.
pub struct ProgressSink<'a> {
    report: RefCell<Box<dyn FnMut(Progress) + 'a>>,
    loaded_bytes: Cell<u64>,
    total_bytes: Cell<u64>,
}

impl<'a> ProgressSink<'a> {
    /// Reports to `report`, which may not use this sink in turn.
    pub fn new(report: impl FnMut(Progress) + 'a) -> Self {
        Self {
            report: RefCell::new(Box::new(report)),
            loaded_bytes: Cell::new(0),
            total_bytes: Cell::new(0),
        }
    }

    /// Reports to nobody.
    pub fn none() -> Self {
        Self::new(|_| ())
    }

    /// Says how many bytes the weights' files have in all.
    pub fn set_total(&self, total_bytes: u64) {
        self.total_bytes.set(total_bytes);
    }

    /// Says that there are so many more.
    pub fn add_total(&self, bytes: u64) {
        self.set_total(self.total_bytes.get().saturating_add(bytes));
    }

    /// Reports that `file`, a configuration or a header, is being read.
    pub fn opening(&self, file: &str) {
        self.send("open", file);
    }

    /// Counts and reports `bytes` more of the weights in `file`.
    pub fn loaded(&self, file: &str, bytes: u64) {
        self.loaded_bytes.set(self.loaded_bytes.get().saturating_add(bytes));
        self.send("weights", file);
    }

    /// Reports that all is loaded, however much of it was here before.
    pub fn done(&self) {
        self.report("weights", "", 1.0);
    }

    fn send(&self, phase: &'static str, file: &str) {
        let fraction = match self.total_bytes.get() {
            0 => 0.0,
            total => (self.loaded_bytes.get() as f64 / total as f64).min(1.0),
        };
        self.report(phase, file, fraction);
    }

    fn report(&self, phase: &'static str, file: &str, fraction: f64) {
        let (loaded_bytes, total_bytes) = (self.loaded_bytes.get(), self.total_bytes.get());
        if let Ok(mut report) = self.report.try_borrow_mut() {
            report(Progress {
                phase,
                file: file.into(),
                loaded_bytes,
                total_bytes,
                fraction,
            });
        }
    }
}

impl std::fmt::Debug for ProgressSink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ProgressSink({} of {} bytes)",
            self.loaded_bytes.get(),
            self.total_bytes.get()
        )
    }
}
