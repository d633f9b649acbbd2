//! Hints that something was committed.

use crate::SqlStorage;
use crate::dialect::Dialect;
use pillarbox_core::{Hints, Wakeup};

impl<D: Dialect> Wakeup for SqlStorage<D> {
    fn subscribe(&self) -> Box<dyn Hints> {
        D::hints(&self.0.config)
    }
}
