//! Compiled kernels and the layouts of their bindings, each made once.

use super::Webgpu;
use super::device::Device;
use super::select::Variant;
use crate::error::Result;
use std::cell::RefCell;
use std::collections::HashMap;

/// Which bindings a kernel has. Group 0: `Args`, `Globals`, what it writes, what it reads; group 1: weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    /// Bindings of what is read, from 3 on.
    pub reads: Vec<u32>,
    /// Number of weights.
    pub weights: u32,
}

/// The cache.
#[derive(Default)]
pub(super) struct Pipelines {
    compiled: RefCell<HashMap<Variant, wgpu::ComputePipeline>>,
    layouts: RefCell<HashMap<Layout, Groups>>,
    /// What was made since [`Pipelines::take_fresh`] was last called.
    fresh: RefCell<Vec<Variant>>,
    /// What a test makes of a kernel's text.
    #[cfg(test)]
    pub(super) spoil: RefCell<Option<Spoil>>,
}

#[cfg(test)]
pub(super) type Spoil = Box<dyn Fn(&Variant, String) -> String>;

impl Webgpu {
    /// [`Device::guarded`] for what compiles: a pipeline that failed is not kept, for it would fail whoever asks for it next in
    /// ways that say nothing.
    pub(super) async fn compiling<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut fresh = Fresh {
            pipelines: &self.pipelines,
            variants: Vec::new(),
        };
        let make = || {
            let made = make();
            fresh.variants = self.pipelines.take_fresh();
            made
        };
        let made = self.device.guarded(make).await?;
        fresh.variants.clear();
        Ok(made)
    }
}

/// Pipelines of which it is not known yet whether they can be used: they go with this, also where nobody waits for the answer any more.
struct Fresh<'a> {
    pipelines: &'a Pipelines,
    variants: Vec<Variant>,
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        let mut compiled = self.pipelines.compiled.borrow_mut();
        self.variants.iter().for_each(|variant| drop(compiled.remove(variant)));
    }
}

#[derive(Clone)]
struct Groups {
    slots: wgpu::BindGroupLayout,
    weights: Option<wgpu::BindGroupLayout>,
    pipeline: wgpu::PipelineLayout,
}

fn entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    let ty = wgpu::BindingType::Buffer {
        ty,
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty,
        count: None,
    }
}

const READ: wgpu::BufferBindingType = wgpu::BufferBindingType::Storage { read_only: true };
const WRITE: wgpu::BufferBindingType = wgpu::BufferBindingType::Storage { read_only: false };

impl Pipelines {
    fn groups(&self, device: &Device, layout: &Layout) -> Groups {
        if let Some(found) = self.layouts.borrow().get(layout) {
            return found.clone();
        }
        let make = |entries: &[wgpu::BindGroupLayoutEntry]| {
            device
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries })
        };
        let uniforms = [0, 1].map(|b| entry(b, wgpu::BufferBindingType::Uniform));
        let reads = layout.reads.iter().map(|&b| entry(b, READ));
        let slots = make(
            &uniforms
                .into_iter()
                .chain([entry(2, WRITE)])
                .chain(reads)
                .collect::<Vec<_>>(),
        );
        let weights: Vec<_> = (0..layout.weights).map(|b| entry(b, READ)).collect();
        let weights = (!weights.is_empty()).then(|| make(&weights));
        let bind_group_layouts: Vec<_> = [Some(&slots), weights.as_ref()]
            .into_iter()
            .flatten()
            .map(Some)
            .collect();
        let pipeline = device.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &bind_group_layouts,
            immediate_size: 0,
        });
        let made = Groups {
            slots,
            weights,
            pipeline,
        };
        self.layouts.borrow_mut().insert(layout.clone(), made.clone());
        made
    }

    /// The layout of group 0.
    pub(super) fn slots(&self, device: &Device, layout: &Layout) -> wgpu::BindGroupLayout {
        self.groups(device, layout).slots
    }

    /// The layout of group 1, if there are weights.
    pub(super) fn weights(&self, device: &Device, layout: &Layout) -> Option<wgpu::BindGroupLayout> {
        self.groups(device, layout).weights
    }

    /// Whether this variant was compiled.
    pub(super) fn has(&self, variant: &Variant) -> bool {
        self.compiled.borrow().contains_key(variant)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.compiled.borrow().len()
    }

    /// The pipeline of a variant. A variant has one layout always.
    pub(super) fn get(&self, device: &Device, variant: &Variant, layout: &Layout) -> Result<wgpu::ComputePipeline> {
        if let Some(found) = self.compiled.borrow().get(variant) {
            return Ok(found.clone());
        }
        let (label, source) = (variant.to_string(), variant.source()?);
        #[cfg(test)]
        let source = match &*self.spoil.borrow() {
            Some(spoil) => spoil(variant, source),
            None => source,
        };
        super::buffers::count_object();
        let module = device.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&self.groups(device, layout).pipeline),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.compiled.borrow_mut().insert(variant.clone(), pipeline.clone());
        self.fresh.borrow_mut().push(variant.clone());
        Ok(pipeline)
    }

    fn take_fresh(&self) -> Vec<Variant> {
        std::mem::take(&mut self.fresh.borrow_mut())
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::executor::webgpu::{Options, variants};
    use pollster::block_on;

    #[test]
    fn what_failed_is_not_kept() {
        if crate::executor::webgpu::tests::has_no_gpu() {
            return;
        }
        let gpu = block_on(Webgpu::new(Options::default())).unwrap();
        let variant = variants().remove(0);
        // Every kernel has more bindings than these.
        let (reads, weights) = (Vec::new(), 0);
        let wrong = Layout { reads, weights };
        for _ in 0..2 {
            let failed = block_on(gpu.compiling(|| gpu.pipelines.get(&gpu.device, &variant, &wrong)));
            assert_eq!(failed.err().map(|e| e.code()), Some("internal"), "{variant}");
            assert!(!gpu.pipelines.has(&variant));
        }
    }
}
