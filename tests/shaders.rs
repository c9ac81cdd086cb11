//! Every variant of every shader is WGSL that parses and validates.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use tintype::executor::webgpu::variants;

#[test]
fn every_variant_is_valid() {
    let variants = variants();
    println!("{} variants", variants.len());
    assert!(variants.len() > 800, "{} variants are listed", variants.len());
    let names: std::collections::BTreeSet<_> = variants.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), variants.len(), "a variant is listed twice");
    for variant in variants {
        let source = variant.source().unwrap_or_else(|e| panic!("{variant}: {e}"));
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|e| panic!("{variant}: {}", e.emit_to_string(&source)));
        // WebGPU always has the one, and kernels ask for no other but 16-bit floats, and those where they say so.
        let half = if source.starts_with("enable f16;") || source.contains("\nenable f16;") {
            Capabilities::SHADER_FLOAT16
        } else {
            Capabilities::empty()
        };
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32 | half);
        validator
            .validate(&module)
            .unwrap_or_else(|e| panic!("{variant}: {}", e.emit_to_string(&source)));
        assert_eq!(module.entry_points.len(), 1, "{variant} has one entry point");
    }
}

#[test]
fn workgroup_memory_fits_every_adapter() {
    for variant in variants() {
        let source = variant.source().unwrap_or_else(|e| panic!("{variant}: {e}"));
        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{variant}: {e}"));
        let sizes = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
        let bytes: u32 = sizes.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
        assert!(bytes <= 16384, "{variant} uses {bytes} bytes of workgroup memory");
    }
}
