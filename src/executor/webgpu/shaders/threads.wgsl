// A thread for each `i` of a function `each`, which turns away those beyond the last.
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    each(workgroup_number(workgroup, count) * 64u + t);
}
