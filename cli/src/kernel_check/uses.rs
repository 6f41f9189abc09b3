//! What each use of a kernel wants from its configuration, as data.

/// One use.
pub(super) struct Use {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// Every group is needed; one option of a group is enough. Names without `CONFIG_`.
    pub(super) wants: &'static [&'static [&'static str]],
}

/// In the order in which a user meets them.
pub(super) const USES: &[Use] = &[
    Use {
        name: "boot",
        what: "start at all and run programs",
        wants: &[
            &["64BIT", "X86_64"],
            &["BINFMT_ELF"],
            &["ACPI", "X86_MPPARSE"],
            &["BLK_DEV_INITRD", "VIRTIO_BLK"],
        ],
    },
    Use {
        name: "several CPUs",
        what: "more than one virtual CPU",
        wants: &[&["SMP"], &["ACPI", "X86_MPPARSE"]],
    },
    Use {
        name: "clock",
        what: "KVM's clock: right after a pause, no calibration at boot",
        wants: &[&["PARAVIRT"], &["KVM_GUEST"]],
    },
    Use {
        name: "serial console",
        what: "console=ttyS0",
        wants: &[&["TTY"], &["SERIAL_8250"], &["SERIAL_8250_CONSOLE"]],
    },
    Use {
        name: "virtio console",
        what: "console=hvc0, which follows the size of the window",
        wants: &[&["VIRTIO_MMIO"], &["VIRTIO_CONSOLE"]],
    },
    Use {
        name: "devices",
        what: "find virtio devices, on the command line or by ACPI",
        wants: &[&["VIRTIO_MMIO"], &["VIRTIO_MMIO_CMDLINE_DEVICES", "ACPI"]],
    },
    Use {
        name: "disks",
        what: "--disk, and a root file system on one",
        wants: &[
            &["VIRTIO_MMIO"],
            &["VIRTIO_BLK"],
            &["EXT4_FS", "XFS_FS", "BTRFS_FS", "EROFS_FS", "SQUASHFS"],
            &["DEVTMPFS"],
        ],
    },
    Use {
        name: "initrd",
        what: "--initrd",
        wants: &[&["BLK_DEV_INITRD"]],
    },
    Use {
        name: "random numbers",
        what: "entropy from the host",
        wants: &[&["VIRTIO_MMIO"], &["HW_RANDOM_VIRTIO"]],
    },
    Use {
        name: "stop from outside",
        what: "the power button of ACPI (the built-in guest has one of its own)",
        wants: &[&["ACPI"], &["ACPI_BUTTON"], &["INPUT_EVDEV"]],
    },
    Use {
        name: "network",
        what: "a network device",
        wants: &[&["INET"], &["PACKET"], &["VIRTIO_MMIO"], &["VIRTIO_NET"]],
    },
    Use {
        name: "IPv6",
        what: "programs that listen on ::",
        wants: &[&["IPV6"]],
    },
    Use {
        name: "vsock",
        what: "sockets between host and guest",
        wants: &[&["VIRTIO_MMIO"], &["VSOCKETS"], &["VIRTIO_VSOCKETS"]],
    },
    Use {
        name: "memory back",
        what: "balloon and free page reporting",
        wants: &[&["VIRTIO_MMIO"], &["VIRTIO_BALLOON"], &["PAGE_REPORTING"]],
    },
    Use {
        name: "shared folders",
        what: "folders of the host through virtio-fs",
        wants: &[&["VIRTIO_MMIO"], &["FUSE_FS"], &["VIRTIO_FS"]],
    },
    Use {
        name: "containers",
        what: "images as root: EROFS below, overlay above, namespaces, cgroup v2",
        wants: &[
            &["EROFS_FS"],
            &["OVERLAY_FS"],
            &["TMPFS"],
            &["TMPFS_XATTR"],
            &["UTS_NS"],
            &["IPC_NS"],
            &["USER_NS"],
            &["PID_NS"],
            &["NET_NS"],
            &["CGROUPS"],
            &["MEMCG"],
            &["CGROUP_PIDS"],
            &["CFS_BANDWIDTH"],
            &["CPUSETS"],
            &["BLK_CGROUP"],
            &["CGROUP_BPF"],
            &["SECCOMP_FILTER"],
            &["POSIX_MQUEUE"],
            &["KEYS"],
        ],
    },
    Use {
        name: "nested containers",
        what: "docker, podman or k3s in the guest, with networks of their own",
        wants: &[
            &["VETH"],
            &["BRIDGE"],
            &["NETFILTER"],
            &["NF_NAT"],
            &["NF_TABLES", "IP_NF_IPTABLES", "IP_NF_IPTABLES_LEGACY"],
            &["NFT_COMPAT", "IP_NF_NAT"],
            &["NETFILTER_XT_MATCH_ADDRTYPE"],
            &["NETFILTER_XT_MATCH_CONNTRACK"],
            &["BRIDGE_NETFILTER"],
            &["BLK_DEV_LOOP"],
        ],
    },
    Use {
        name: "VPN",
        what: "tunnels in the guest",
        wants: &[&["TUN"], &["WIREGUARD"]],
    },
    Use {
        name: "snapshots",
        what: "new random numbers in each copy of a restored guest",
        wants: &[&["KVM_GUEST"], &["ACPI"], &["VMGENID"]],
    },
];
