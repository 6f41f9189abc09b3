//! Linux's bzImage: the setup header and the packed ELF behind it (boot protocol 2.08 and later).

use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use vm_memory::ByteValued;

use super::kernel::{Kernel, KernelFormat, Payload};
use super::{KernelError, ReadAt, elf, read, unpack};

/// Where the magic number of a bzImage is.
pub(super) const MAGIC_OFFSET: usize = 0x202;
/// The magic number.
pub(super) const MAGIC: [u8; 4] = *b"HdrS";

/// Where the setup header is, in the file and in `boot_params`.
const HEADER_OFFSET: u64 = 0x1f1;
const BOOT_FLAG: u16 = 0xaa55;
/// The first protocol that says where the payload is.
const VERSION_MIN: u16 = 0x0208;
/// The first protocol with `xloadflags`.
const VERSION_XLOADFLAGS: u16 = 0x020c;
const SECTOR: u64 = 512;
/// What 0 sectors of set-up code mean, for history's sake.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// The setup header ends at 0x202 plus the second byte of its jump instruction.
const JUMP_ORIGIN: u64 = 0x202;
/// End of `payload_length`, the last field that is needed here.
const PAYLOAD_FIELDS_END: u64 = 0x250;
/// Largest packed payload, in bytes.
const PACKED_MAX: u64 = 512 << 20;
/// Least length of a command line that any kernel with this protocol takes.
const CMDLINE_MIN: u32 = 255;
/// Least address that an initrd must be allowed to end at.
const INITRD_MAX_MIN: u32 = 0x00ff_ffff;

/// Parses a bzImage and unpacks its payload.
pub(super) fn open(image: &dyn ReadAt) -> Result<Kernel, KernelError> {
    let setup = header(image)?;
    let (offset, len) = payload_range(image, &setup)?;
    let packed = read::bytes(image, offset, len, "the payload of the bzImage")?;
    let (compression, unpacked) = unpack::unpack(&packed)?;
    drop(packed);
    let inner = elf::open(&unpacked).map_err(|inner| KernelError::Payload {
        compression,
        // One sentence has one remedy: that of the payload as a whole.
        reason: inner.to_string().replace(": ", ", "),
    })?;
    Ok(Kernel {
        format: KernelFormat::BzImage,
        compression,
        payload: Payload::Unpacked(unpacked),
        setup: Some(setup),
        ..inner
    })
}

/// Reads and checks the setup header; what the image's protocol does not have is zero.
fn header(image: &dyn ReadAt) -> Result<setup_header, KernelError> {
    let mut jump = [0; 1];
    read::fill(image, &mut jump, JUMP_ORIGIN - 1, "the setup header")?;
    let [jump] = jump;
    let mut raw = [0; size_of::<setup_header>()];
    let stated = JUMP_ORIGIN + u64::from(jump) - HEADER_OFFSET;
    let len = usize::try_from(stated).map_or(raw.len(), |len| len.min(raw.len()));
    if let Some(head) = raw.get_mut(..len) {
        read::fill(image, head, HEADER_OFFSET, "the setup header")?;
    }
    let mut setup = setup_header::default();
    setup.as_mut_slice().copy_from_slice(&raw);
    check_header(&setup, jump)?;
    Ok(setup)
}

/// The fields that an image must have right to be usable here.
fn check_header(setup: &setup_header, jump: u8) -> Result<(), KernelError> {
    let version = setup.version;
    let wrong = |field, value: u64, remedy| {
        Err(KernelError::Field {
            field,
            value,
            remedy,
        })
    };
    let damaged = "the file is damaged, copy or build it again";
    if setup.boot_flag != BOOT_FLAG {
        return wrong("boot_flag", setup.boot_flag.into(), damaged);
    }
    if version < VERSION_MIN {
        let remedy = "boot protocol 2.08 or later is needed, use Linux 2.6.26 or later";
        return wrong("version", version.into(), remedy);
    }
    if u64::from(jump) < PAYLOAD_FIELDS_END - JUMP_ORIGIN {
        return wrong("jump", jump.into(), damaged);
    }
    if setup.loadflags & LOADED_HIGH == 0 {
        let remedy = "bit 0 (LOADED_HIGH) must be set, give a bzImage and no zImage";
        return wrong("loadflags", setup.loadflags.into(), remedy);
    }
    if version >= VERSION_XLOADFLAGS && setup.xloadflags & XLF_KERNEL_64 == 0 {
        let remedy = "bit 0 (XLF_KERNEL_64) must be set, use a 64-bit kernel (CONFIG_64BIT=y)";
        return wrong("xloadflags", setup.xloadflags.into(), remedy);
    }
    if setup.cmdline_size < CMDLINE_MIN {
        return wrong("cmdline_size", setup.cmdline_size.into(), damaged);
    }
    if setup.initrd_addr_max < INITRD_MAX_MIN {
        return wrong("initrd_addr_max", setup.initrd_addr_max.into(), damaged);
    }
    Ok(())
}

/// Offset and length of the payload in the file.
fn payload_range(image: &dyn ReadAt, setup: &setup_header) -> Result<(u64, u64), KernelError> {
    let sectors = match setup.setup_sects {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    let protected = (u64::from(sectors) + 1) * SECTOR;
    let code_len = u64::from(setup.syssize) * 16;
    read::check(
        image,
        protected,
        code_len,
        "the protected-mode code (setup_sects, syssize)",
    )?;
    let (offset, len) = (
        u64::from(setup.payload_offset),
        u64::from(setup.payload_length),
    );
    let wrong = |field, value, remedy| {
        Err(KernelError::Field {
            field,
            value,
            remedy,
        })
    };
    if len == 0 {
        let remedy = "there is no payload, the file is damaged";
        return wrong("payload_length", len, remedy);
    }
    if len > PACKED_MAX {
        let remedy = "at most 512 MiB are unpacked, use a smaller kernel";
        return wrong("payload_length", len, remedy);
    }
    if offset + len > code_len {
        let remedy = "payload_offset + payload_length is beyond syssize, the file is damaged";
        return wrong("payload_offset", offset, remedy);
    }
    Ok((protected + offset, len))
}

#[cfg(test)]
mod tests;
