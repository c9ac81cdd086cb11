//! Comparing two results where they are: reading them back would take longer than the race.

use super::judge::Difference;
use crate::error::Result;
use crate::executor::webgpu::Webgpu;
use crate::executor::webgpu::buffers::{Buffer, count_object};
use crate::executor::webgpu::pipelines::Layout;
use crate::executor::webgpu::select::Variant;

/// Threads that look at every so manieth element each.
const THREADS: usize = 8192;

impl Webgpu {
    /// How far the first `len` elements of `found` are from those of `right`, every one of them.
    pub(super) async fn compare(&self, right: &Buffer, found: &Buffer, len: usize) -> Result<Difference> {
        let device = &self.device;
        let layout = Layout {
            reads: vec![3, 4],
            weights: 0,
        };
        let make = || {
            let args = Buffer::uniform(device, "sizes", 4)?;
            args.write(device, 0, bytemuck::cast_slice(&[0, len as u32, THREADS as u32, 0]))?;
            let globals = Buffer::uniform(device, "the step", 4)?;
            let dst = Buffer::new(device, "differences", 4 * THREADS)?;
            let bound = [&args, &globals, &dst, right, found];
            let entries: Vec<_> = (0..)
                .zip(bound)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.raw().as_entire_binding(),
                })
                .collect();
            count_object();
            let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("compare"),
                layout: &self.pipelines.slots(device, &layout),
                entries: &entries,
            });
            let pipeline = self.pipelines.get(device, &Variant::new("compare"), &layout)?;
            Ok((pipeline, group, [args, globals, dst]))
        };
        let (pipeline, group, [_args, _globals, dst]) = self.compiling(make).await?;
        let mut encoder = device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((THREADS / 64) as u32, 1, 1);
        drop(pass);
        device.send(encoder.finish());
        let each = self.read(&dst, 0, dst.len()).await?;
        let none = Difference {
            largest: 0.0,
            most: 0.0,
            strange: [0, 0],
        };
        Ok(each.chunks_exact(4).fold(none, |sum, of| Difference {
            largest: sum.largest.max(of[0]),
            most: sum.most.max(of[1]),
            strange: [sum.strange[0] + of[2] as usize, sum.strange[1] + of[3] as usize],
        }))
    }
}
