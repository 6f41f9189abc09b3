//! CPUID leaves as plain data and the policy that turns host leaves into guest leaves.
