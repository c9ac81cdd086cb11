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
    let (x, dst, ho, wo, pool) = (o.input(0)?.tensor.clone(), o.dst.clone(), *ho, *wo, o.pool);
    Ok(Work::rows(batch * ho, wo * c, move |lines| {
        let x = &read::<f32>(&x)?[..];
        write(&dst, |dst: &mut [f32]| {
            let dst = &mut dst[lines.start * wo * c..lines.end * wo * c];
            pool.rows(dst, wo * c, |some, dst| {
                for (line, to) in (lines.start + some.start..).zip(dst.chunks_exact_mut(wo * c)) {
                    let from = (line / ho * h + nearest(line % ho, h, ho)) * w * c;
                    let from = &x[from..from + w * c];
                    for (i, pixel) in to.chunks_exact_mut(c).enumerate() {
                        let at = nearest(i, w, wo) * c;
                        pixel.copy_from_slice(&from[at..at + c]);
                    }
                }
            });
        })
    }))
}
