//! Disk images: formats and the engines that read and write them.
