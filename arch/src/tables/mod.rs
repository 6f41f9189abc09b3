//! The platform as the guest is told: ACPI and MP tables as bytes.
