// The sum over a workgroup of `THREADS`, to each of them.
var<workgroup> shared_sums: array<f32, $THREADSu>;

fn sum_of_all(mine: f32, t: u32) -> f32 {
    shared_sums[t] = mine;
    workgroupBarrier();
    for (var half = $THREADSu / 2u; half > 0u; half /= 2u) {
        if t < half {
            shared_sums[t] += shared_sums[t + half];
        }
        workgroupBarrier();
    }
    let sum = shared_sums[0];
    workgroupBarrier();
    return sum;
}
