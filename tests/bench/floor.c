// The floor that start-up is measured against: the least that a program must do to run a guest of
// one vCPU with a split interrupt controller. No devices but the byte at 0x3f8 and the reset at
// 0x64, no checks of the image: it only ever runs the test guest of the benchmark.
// usage: floor IMAGE MEMORY_MIB
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PML4 = 0x9000, PDPT = 0xa000, PD = 0xb000, GDT = 0x500, HEADER_SIZE = 56, SIZE = 1 << 14 };

static void must(int fine, const char *what)
{
    if (!fine) {
        perror(what);
        exit(1);
    }
}

// Copies the loadable segments and returns the entry.
static uint64_t load(const char *path, uint8_t *ram)
{
    static uint8_t file[SIZE];
    uint64_t entry, headers, offset, address, size;
    uint16_t count;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && read(fd, file, SIZE) > 64, path);
    memcpy(&entry, file + 24, 8);
    memcpy(&headers, file + 32, 8);
    memcpy(&count, file + 56, 2);
    for (int i = 0; i < count; i++) {
        uint8_t *header = file + headers + HEADER_SIZE * i;
        memcpy(&offset, header + 8, 8);
        memcpy(&address, header + 24, 8);
        memcpy(&size, header + 32, 8);
        if (header[0] == 1)
            memcpy(ram + address, file + offset, size);
    }
    return entry;
}

// 64-bit mode, the first GiB mapped to itself.
static void tables(uint8_t *ram)
{
    uint64_t *pml4 = (void *)(ram + PML4), *pdpt = (void *)(ram + PDPT), *pd = (void *)(ram + PD);
    uint64_t *gdt = (void *)(ram + GDT);
    pml4[0] = PDPT | 3;
    pdpt[0] = PD | 3;
    for (uint64_t i = 0; i < 512; i++)
        pd[i] = i << 21 | 0x83;
    gdt[2] = 0x00af9b000000ffffULL;
    gdt[3] = 0x00cf93000000ffffULL;
}

static void start(int vcpu, uint64_t entry)
{
    struct kvm_segment code = { 0, 0xffffffff, 0x10, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0 };
    struct kvm_segment data = { 0, 0xffffffff, 0x18, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0 };
    struct kvm_regs regs = { .rip = entry, .rflags = 2, .rsp = 0x8ff0 };
    struct kvm_sregs sregs;
    must(ioctl(vcpu, KVM_GET_SREGS, &sregs) == 0, "KVM_GET_SREGS");
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 0x1f;
    sregs.cr3 = PML4;
    sregs.cr4 = 0x20;
    sregs.cr0 = 0x80050033;
    sregs.efer = 0x500;
    must(ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0, "KVM_SET_SREGS");
    must(ioctl(vcpu, KVM_SET_REGS, &regs) == 0, "KVM_SET_REGS");
}

int main(int count, char **arguments)
{
    must(count == 3, "usage: floor IMAGE MEMORY_MIB");
    size_t size = (size_t)atoi(arguments[2]) << 20;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    must(kvm >= 0, "/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    uint8_t *ram = mmap(0, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(vm >= 0 && ram != MAP_FAILED, "a machine and its memory");
    ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
    must(ioctl(vm, KVM_ENABLE_CAP, &split) == 0, "KVM_CAP_SPLIT_IRQCHIP");
    struct kvm_userspace_memory_region slot = { 0, 0, 0, size, (uintptr_t)ram };
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0, "KVM_SET_USER_MEMORY_REGION");
    uint64_t entry = load(arguments[1], ram);
    tables(ram);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int mapped = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(0, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    must(run != MAP_FAILED, "a vCPU");
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 100 * sizeof cpuid->entries[0]);
    cpuid->nent = 100;
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0, "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu, KVM_SET_CPUID2, cpuid) == 0, "KVM_SET_CPUID2");
    start(vcpu, entry);
    for (;;) {
        must(ioctl(vcpu, KVM_RUN, 0) == 0, "KVM_RUN");
        must(run->exit_reason == KVM_EXIT_IO, "an exit other than a port's");
        uint8_t *data = (uint8_t *)run + run->io.data_offset;
        if (run->io.port == 0x3f8)
            must(write(1, data, 1) == 1, "standard output");
        if (run->io.port == 0x64 && *data == 0xfe)
            return 0;
    }
}
