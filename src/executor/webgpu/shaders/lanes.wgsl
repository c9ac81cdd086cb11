// What a kernel that goes through a value handles at once: four channels, or one where their number is no multiple of four; and that
// in memory.
#ifdef SCALAR
alias V = f32;
alias U = u32;
alias SlotV = Slot;
#else
alias V = vec4<f32>;
alias U = vec4<u32>;
alias SlotV = Slot4;
#endif
