//! Linear combinations of ranges of buffers, which is all that a sampler does to latents.

use super::Webgpu;
use super::buffers::Buffer;
use super::pipelines::Layout;
use super::select::Variant;
use crate::error::{Error, Result};
use crate::executor::View;
use std::cell::RefCell;

/// Bind groups that are kept, those that were used last; buffers come and go. A picture has far fewer.
const KEPT: usize = 64;

/// Terms at most.
const TERMS: usize = 4;
/// What is read: a term's source each, and a mask.
const READS: usize = TERMS + 1;

/// What combining needs; made when the device is.
pub(super) struct Combine {
    args: Buffer,
    globals: Buffer,
    /// Bound where there are fewer sources than bindings.
    nothing: Buffer,
    /// By the numbers of what they bind, what was used last at the end.
    groups: RefCell<Vec<([u64; READS + 1], wgpu::BindGroup)>>,
}

/// What a combination sets.
struct Bound {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    args: Vec<u32>,
}

fn layout() -> Layout {
    Layout {
        reads: (3..).take(READS).collect(),
        weights: 0,
    }
}

fn buffer(view: &View) -> Result<&Buffer> {
    match &view.buffer {
        crate::executor::Buffer::Webgpu(buffer) => {
            buffer.check_words()?;
            let end = view.offset.checked_add(view.len);
            if end.is_none_or(|end| end > buffer.len()) {
                return Err(Error::Internal(format!(
                    "{} elements at {} of a buffer of {}",
                    view.len,
                    view.offset,
                    buffer.len()
                )));
            }
            Ok(buffer)
        }
        crate::executor::Buffer::Cpu(_) => Err(Error::Internal("operands of two executors were mixed".into())),
    }
}

impl Combine {
    pub(super) fn new(device: &super::device::Device) -> Result<Self> {
        Ok(Self {
            args: Buffer::uniform(device, "coefficients", 8 + 4 * TERMS)?,
            globals: Buffer::uniform(device, "the step", 4)?,
            nothing: Buffer::new(device, "nothing", 4)?,
            groups: RefCell::default(),
        })
    }
}

impl Webgpu {
    pub(in crate::executor) fn combine(
        &self,
        dst: &View,
        terms: &[(View, f32)],
        clamp: Option<f32>,
        mask: Option<&View>,
    ) -> Result<()> {
        let Bound { pipeline, group, args } = self.combination(dst, terms, clamp, mask)?;
        if dst.len == 0 {
            return Ok(());
        }
        self.combine.args.write(&self.device, 0, bytemuck::cast_slice(&args))?;
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        let most = self.device.limits.max_compute_workgroups_per_dimension as usize;
        let workgroups = dst.len.div_ceil(64);
        let y = workgroups.div_ceil(most);
        pass.dispatch_workgroups(workgroups.div_ceil(y) as u32, y as u32, 1);
        drop(pass);
        // Submitted at once: the next call writes the same uniforms.
        self.device.send(encoder.finish());
        Ok(())
    }

    pub(in crate::executor) fn ready_to_combine(
        &self,
        dst: &View,
        terms: &[(View, f32)],
        mask: Option<&View>,
    ) -> Result<()> {
        self.combination(dst, terms, None, mask).map(drop)
    }

    fn combination(&self, dst: &View, terms: &[(View, f32)], clamp: Option<f32>, mask: Option<&View>) -> Result<Bound> {
        if terms.len() > TERMS {
            return Err(Error::Internal(format!(
                "{} terms; at most {TERMS} are combined",
                terms.len()
            )));
        }
        let target = buffer(dst)?;
        let mut sources: Vec<&Buffer> = Vec::new();
        let mut args = vec![
            dst.len as u32,
            dst.offset as u32,
            terms.len() as u32,
            u32::from(clamp.is_some()),
        ];
        let mask_offset = mask.map_or(0, |mask| mask.offset as u32);
        args.extend([
            clamp.unwrap_or(0.0).to_bits(),
            u32::from(mask.is_some()),
            mask_offset,
            0,
        ]);
        for (view, coefficient) in terms {
            let source = buffer(view)?;
            if view.len != dst.len {
                return Err(Error::Internal(format!(
                    "{} elements are combined into {}",
                    view.len, dst.len
                )));
            }
            let number = if source.id() == target.id() {
                if view.offset != dst.offset && view.offset.abs_diff(dst.offset) < dst.len {
                    return Err(Error::Internal("what is combined overlaps where it goes".into()));
                }
                0
            } else if let Some(i) = sources.iter().position(|s| s.id() == source.id()) {
                i + 1
            } else {
                sources.push(source);
                sources.len()
            };
            args.extend([number as u32, view.offset as u32, coefficient.to_bits(), 0]);
        }
        args.resize(8 + 4 * TERMS, 0);

        let state = &self.combine;
        sources.resize(TERMS, &state.nothing);
        sources.push(match mask {
            Some(mask) if mask.len != dst.len => {
                return Err(Error::Internal(format!(
                    "a mask of {} elements for {}",
                    mask.len, dst.len
                )));
            }
            Some(mask) if buffer(mask)?.id() == target.id() => {
                return Err(Error::Internal("a mask lies where it masks".into()));
            }
            Some(mask) => buffer(mask)?,
            None => &state.nothing,
        });
        Ok(Bound {
            pipeline: self.pipelines.get(&self.device, &Variant::new("combine"), &layout())?,
            group: self.group(target, &sources),
            args,
        })
    }

    fn group(&self, target: &Buffer, sources: &[&Buffer]) -> wgpu::BindGroup {
        let state = &self.combine;
        let mut key = [target.id(); READS + 1];
        key.iter_mut().skip(1).zip(sources).for_each(|(k, s)| *k = s.id());
        let mut groups = state.groups.borrow_mut();
        if let Some(at) = groups.iter().position(|(known, _)| *known == key) {
            groups[at..].rotate_left(1);
        } else {
            super::buffers::count_object();
            let bound = [&state.args, &state.globals, target]
                .into_iter()
                .chain(sources.iter().copied());
            let entries: Vec<_> = (0..)
                .zip(bound)
                .map(|(binding, b)| wgpu::BindGroupEntry {
                    binding,
                    resource: b.raw().as_entire_binding(),
                })
                .collect();
            let made = self.device.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("combine"),
                layout: &self.pipelines.slots(&self.device, &layout()),
                entries: &entries,
            });
            if groups.len() == KEPT {
                groups.remove(0);
            }
            groups.push((key, made));
        }
        groups[groups.len() - 1].1.clone()
    }
}
