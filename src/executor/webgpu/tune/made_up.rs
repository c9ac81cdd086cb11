//! The operands that a node is raced on, which are made up.

use crate::error::Result;
use crate::executor::webgpu::{Instance, Webgpu};

/// Made-up numbers: a prime, so that no two rows are the same ones.
const NUMBERS: usize = 65_537;

/// Numbers from -1 to 1, the same each time, which halves hold too.
pub(super) fn made_up(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 20) as f32 / (1 << 11) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

impl Webgpu {
    /// Fills the inputs of an instance with made-up numbers, on the GPU: they are made once, and copied as often as it takes.
    pub(super) async fn make_up(&self, instance: &Instance) -> Result<()> {
        let known = self.tuner.made_up.borrow().clone();
        let numbers = match known {
            Some(numbers) => numbers,
            None => {
                let made = self.buffer(NUMBERS).await?;
                made.write(&self.device, 0, bytemuck::cast_slice(&made_up(NUMBERS)))?;
                self.tuner.made_up.replace(Some(made.clone()));
                made
            }
        };
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        for name in instance.plan.input_names() {
            let value = instance.plan.input(name)?.0;
            let to = instance.value(value, 0)?;
            let len = instance.plan.values[value].shape.len();
            for start in (0..len).step_by(NUMBERS) {
                let bytes = NUMBERS.min(len - start) as u64 * 4;
                encoder.copy_buffer_to_buffer(numbers.raw(), 0, to.raw(), start as u64 * 4, bytes);
            }
        }
        self.device.send(encoder.finish());
        Ok(())
    }
}
