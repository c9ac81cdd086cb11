//! Weights on the device, each component held once however many checkpoints use it.

use crate::executor::{WeightDtype, Weights};
use crate::graph::ParamSpec;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// The weights of one component.
pub(super) struct Shared {
    /// See [`Content`](super::content::Content).
    pub(super) id: String,
    /// What they are packed for: the same tensors may serve two architectures.
    pub(super) params: Rc<Vec<(ParamSpec, WeightDtype)>>,
    pub(super) weights: Weights,
    /// Bytes on the device.
    pub(super) bytes: u64,
}

/// The components that someone holds.
#[derive(Default)]
pub(super) struct Pool {
    held: RefCell<Vec<Weak<Shared>>>,
    /// Ids of what was read so far, by its [`address`](super::content::address).
    known: RefCell<HashMap<[u8; 32], String>>,
}

impl Pool {
    /// All of them.
    pub(super) fn all(&self) -> Vec<Rc<Shared>> {
        let mut all = self.held.borrow_mut();
        all.retain(|shared| shared.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.all().iter().map(|shared| shared.bytes).sum()
    }

    /// Notes what is at an address.
    pub(super) fn note(&self, address: [u8; 32], id: &str) {
        self.known.borrow_mut().insert(address, id.into());
    }

    /// The id of what is at this address, if it was read from there before.
    pub(super) fn id_at(&self, address: [u8; 32]) -> Option<String> {
        self.known.borrow().get(&address).cloned()
    }

    /// The component that is at this address, if it was read from there before.
    pub(super) fn find_at(&self, address: [u8; 32], params: &[(ParamSpec, WeightDtype)]) -> Option<Rc<Shared>> {
        self.find(&self.id_at(address)?, params)
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
            self.held.borrow_mut().push(Rc::downgrade(&shared));
            shared
        })
    }
}
