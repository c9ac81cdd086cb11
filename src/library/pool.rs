//! Weights on the device, each component held once however many checkpoints use it.

use crate::executor::{WeightDtype, Weights};
use crate::graph::ParamSpec;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// The weights of one component.
pub(super) struct Shared {
    /// See [`content_id`].
    pub(super) id: String,
    /// What they are packed for: the same files may serve two architectures.
    pub(super) params: Rc<Vec<(ParamSpec, WeightDtype)>>,
    pub(super) weights: Weights,
    /// Bytes on the device.
    pub(super) bytes: u64,
}

/// What a component is known by: its class and the content of its files, never their names or places.
pub(super) fn content_id(class: &str, files: &[[u8; 32]]) -> String {
    let mut hash = Sha256::new();
    hash.update(class.as_bytes());
    files.iter().for_each(|file| hash.update(file));
    crate::checkpoint::expected::hex(&hash.finalize())
}

/// The components that someone holds.
#[derive(Default)]
pub(super) struct Pool(RefCell<Vec<Weak<Shared>>>);

impl Pool {
    /// All of them.
    pub(super) fn all(&self) -> Vec<Rc<Shared>> {
        let mut all = self.0.borrow_mut();
        all.retain(|shared| shared.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.all().iter().map(|shared| shared.bytes).sum()
    }

    /// The component of this content, packed for these parameters.
    pub(super) fn find(&self, id: &str, params: &[(ParamSpec, WeightDtype)]) -> Option<Rc<Shared>> {
        self.all()
            .into_iter()
            .find(|shared| shared.id == id && *shared.params == params)
    }

    /// Takes in a component that was read, or gives the same one if it is here already; what was read is dropped then.
    pub(super) fn keep(&self, shared: Shared) -> Rc<Shared> {
        self.find(&shared.id, &shared.params).unwrap_or_else(|| {
            let shared = Rc::new(shared);
            self.0.borrow_mut().push(Rc::downgrade(&shared));
            shared
        })
    }
}
