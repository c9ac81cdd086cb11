//! Tensors of a safetensors file, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use tintype::executor::WeightDtype;

/// A file below `tests/golden`.
pub fn golden_path(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", path].iter().collect()
}

/// One tensor, as the file has it.
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        bytemuck::pod_collect_to_vec(&self.bytes)
    }

    pub fn u32(&self) -> Vec<u32> {
        assert_eq!(self.dtype, Dtype::U32);
        bytemuck::pod_collect_to_vec(&self.bytes)
    }

    pub fn weight_dtype(&self) -> WeightDtype {
        match self.dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::BF16 => WeightDtype::Bf16,
            Dtype::F8_E4M3 => WeightDtype::E4m3,
            Dtype::F8_E5M2 => WeightDtype::E5m2,
            other => panic!("weights of {other:?}"),
        }
    }
}

/// The tensors of a file, and what its metadata says.
pub struct Golden {
    pub tensors: BTreeMap<String, Tensor>,
    pub metadata: BTreeMap<String, String>,
}

impl Golden {
    /// Reads a file below `tests/golden`.
    pub fn read(path: &str) -> Self {
        let path = golden_path(path);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), Tensor { dtype, shape, bytes })
        };
        Self {
            tensors: file.iter().map(tensor).collect(),
            metadata: header.metadata().clone().unwrap_or_default().into_iter().collect(),
        }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }
}
