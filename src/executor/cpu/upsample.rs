//! Scaling to the nearest pixel, where no convolution follows that could do it while gathering.

use super::chunks::Work;
use super::conv2d::nearest;
use super::memory::{read, write};
use super::operands::Operands;
use crate::error::{Error, Result};
use crate::graph::Op;

pub(super) fn work(o: &Operands<'_>) -> Result<Work> {
    let (Op::Upsample { size: [ho, wo] }, Some([batch, h, w, c])) = (&o.node.op, o.input(0)?.shape.image()) else {
        return Err(Error::Internal("no scaling of an image".into()));
    };
    let (x, dst, ho, wo) = (o.input(0)?.tensor.clone(), o.dst.clone(), *ho, *wo);
    Ok(Work::rows(batch * ho, wo * c, move |lines| {
        let x = read::<f32>(&x)?;
        write(&dst, |dst: &mut [f32]| {
            for line in lines {
                let from = (line / ho * h + nearest(line % ho, h, ho)) * w * c;
                let from = &x[from..from + w * c];
                let to = dst[line * wo * c..(line + 1) * wo * c].chunks_exact_mut(c);
                for (i, pixel) in to.enumerate() {
                    let at = nearest(i, w, wo) * c;
                    pixel.copy_from_slice(&from[at..at + c]);
                }
            }
        })
    }))
}
