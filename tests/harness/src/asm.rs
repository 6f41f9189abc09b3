//! A very small assembler: only instructions whose bytes mean the same in 32-bit and 64-bit mode,
//! so that one guest starts through the 64-bit entry and through the PVH entry alike.
//!
//! Registers are `eax`, `ecx`, `edx`, `edi` and `esi` (in 64-bit mode the upper halves are zero).

/// Code under construction.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    bytes: Vec<u8>,
}

/// A place in the code to jump back to.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A short jump whose target comes later.
#[derive(Debug)]
#[must_use]
pub struct Forward(usize);

impl Asm {
    /// No code yet.
    #[must_use]
    pub fn new() -> Asm {
        Asm::default()
    }

    /// The finished bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn put(mut self, bytes: &[u8]) -> Asm {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(self, bytes: &[u8]) -> Asm {
        self.put(bytes)
    }

    /// `mov dx, port` (66 BA iw).
    #[must_use]
    pub fn dx(self, port: u16) -> Asm {
        self.put(&[0x66, 0xba]).put(&port.to_le_bytes())
    }

    /// `mov al, value` (B0 ib).
    #[must_use]
    pub fn al(self, value: u8) -> Asm {
        self.put(&[0xb0, value])
    }

    /// `mov eax, value` (B8 id).
    #[must_use]
    pub fn eax(self, value: u32) -> Asm {
        self.put(&[0xb8]).put(&value.to_le_bytes())
    }

    /// `mov ecx, value` (B9 id).
    #[must_use]
    pub fn ecx(self, value: u32) -> Asm {
        self.put(&[0xb9]).put(&value.to_le_bytes())
    }

    /// `mov edi, value` (BF id).
    #[must_use]
    pub fn edi(self, value: u32) -> Asm {
        self.put(&[0xbf]).put(&value.to_le_bytes())
    }

    /// `add edi, value` (81 C7 id).
    #[must_use]
    pub fn add_edi(self, value: u32) -> Asm {
        self.put(&[0x81, 0xc7]).put(&value.to_le_bytes())
    }

    /// `add edx, 1` (83 C2 01).
    #[must_use]
    pub fn next_port(self) -> Asm {
        self.put(&[0x83, 0xc2, 0x01])
    }

    /// `out dx, al` (EE).
    #[must_use]
    pub fn out(self) -> Asm {
        self.put(&[0xee])
    }

    /// `out dx, eax` (EF).
    #[must_use]
    pub fn out_dword(self) -> Asm {
        self.put(&[0xef])
    }

    /// `in al, dx` (EC).
    #[must_use]
    pub fn input(self) -> Asm {
        self.put(&[0xec])
    }

    /// `in eax, dx` (ED).
    #[must_use]
    pub fn input_dword(self) -> Asm {
        self.put(&[0xed])
    }

    /// `mov eax, [edi]` (8B 07).
    #[must_use]
    pub fn load(self) -> Asm {
        self.put(&[0x8b, 0x07])
    }

    /// `mov [edi], eax` (89 07).
    #[must_use]
    pub fn store(self) -> Asm {
        self.put(&[0x89, 0x07])
    }

    /// `shr eax, 8` (C1 E8 08).
    #[must_use]
    pub fn next_byte(self) -> Asm {
        self.put(&[0xc1, 0xe8, 0x08])
    }

    /// `hlt` (F4).
    #[must_use]
    pub fn hlt(self) -> Asm {
        self.put(&[0xf4])
    }

    /// `cli` (FA).
    #[must_use]
    pub fn cli(self) -> Asm {
        self.put(&[0xfa])
    }

    /// Writes one value to one port.
    #[must_use]
    pub fn out_to(self, port: u16, value: u8) -> Asm {
        self.dx(port).al(value).out()
    }

    /// Writes text to the serial port, without asking whether it is ready.
    #[must_use]
    pub fn say(self, text: &str) -> Asm {
        text.bytes()
            .fold(self.dx(0x3f8), |code, byte| code.al(byte).out())
    }

    /// Writes the four bytes of `eax` to the serial port, lowest first.
    #[must_use]
    pub fn say_eax(self) -> Asm {
        (0..4).fold(self.dx(0x3f8), |code, _| code.out().next_byte())
    }

    /// This place.
    #[must_use]
    pub fn here(&self) -> Label {
        Label(self.bytes.len())
    }

    /// `jmp label` (EB cb). Distances are at most 128 bytes: longer ones are a mistake of the test.
    #[must_use]
    pub fn jump(self, label: Label) -> Asm {
        self.short(0xeb, label)
    }

    /// `loop label` (E2 cb): subtracts one from ecx and jumps while it isn't zero.
    #[must_use]
    pub fn repeat(self, label: Label) -> Asm {
        self.short(0xe2, label)
    }

    /// `test al, mask; jz label` (A8 ib, 74 cb).
    #[must_use]
    pub fn until_bit(self, mask: u8, label: Label) -> Asm {
        self.put(&[0xa8, mask]).short(0x74, label)
    }

    /// `cmp al, value; jne label` (3C ib, 75 cb).
    #[must_use]
    pub fn unless_al(self, value: u8, label: Label) -> Asm {
        self.put(&[0x3c, value]).short(0x75, label)
    }

    /// `cmp dx, port; je forward` (66 81 FA iw, 74 cb).
    pub fn if_port(self, port: u16) -> (Asm, Forward) {
        let code = self
            .put(&[0x66, 0x81, 0xfa])
            .put(&port.to_le_bytes())
            .put(&[0x74, 0]);
        let at = code.bytes.len() - 1;
        (code, Forward(at))
    }

    /// Lets a forward jump land here.
    #[must_use]
    pub fn land(mut self, forward: &Forward) -> Asm {
        let distance = self.bytes.len() - forward.0 - 1;
        if let Some(byte) = self.bytes.get_mut(forward.0) {
            *byte = u8::try_from(distance).expect("a short jump in a test guest");
        }
        self
    }

    fn short(self, opcode: u8, label: Label) -> Asm {
        let distance = self.bytes.len() + 2 - label.0;
        let distance = i8::try_from(distance).expect("a short jump in a test guest");
        self.put(&[opcode, (-distance).cast_unsigned()])
    }
}
