//! Clocks and power of an architecture: round figures of its largest board, since no public table
//! has all models.

use super::gpu::Gpu;
use crate::code::Code;

/// What settings and measurements stay within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Power limit that holds unless another is set, mW.
    pub power_default_mw: u32,
    /// Least power limit, mW.
    pub power_min_mw: u32,
    /// Greatest graphics clock, MHz; clocks go down from it in steps of [`STEP_MHZ`].
    pub graphics_max_mhz: u32,
    /// Graphics clock at idle, MHz.
    pub graphics_idle_mhz: u32,
    /// The memory clock, MHz.
    pub memory_mhz: u32,
}

/// Between two graphics clocks.
pub const STEP_MHZ: u32 = 15;

impl Gpu {
    /// The limits of its architecture.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let (watts, graphics_max_mhz, memory_mhz) =
            match self.model().map(|model| model.architecture()) {
                Ok(7) => (400, 1410, 1593),
                Ok(8) => (350, 2520, 9001),
                Ok(9) => (700, 1980, 2619),
                _ => (1000, 1965, 3996),
            };
        Limits {
            power_default_mw: watts * 1000,
            power_min_mw: watts * 1000 * 2 / 7,
            graphics_max_mhz,
            graphics_idle_mhz: 345,
            memory_mhz,
        }
    }

    /// The power limit in force, mW.
    #[must_use]
    pub fn power_limit_mw(&self) -> u32 {
        self.settings.power_limit_mw.unwrap_or(self.limits().power_default_mw)
    }

    /// The graphics clock: by load, within a lock.
    #[must_use]
    pub fn graphics_mhz(&self) -> u32 {
        let limits = self.limits();
        let free = if self.sensors.gpu_percent > 0 {
            limits.graphics_max_mhz
        } else {
            limits.graphics_idle_mhz
        };
        self.settings.graphics_lock.map_or(free, |(least, most)| free.clamp(least, most))
    }

    /// The memory clock, within a lock.
    #[must_use]
    pub fn memory_mhz(&self) -> u32 {
        let free = self.limits().memory_mhz;
        self.settings.memory_lock.map_or(free, |(least, most)| free.clamp(least, most))
    }

    /// Graphics clocks that can be had, greatest first.
    #[must_use]
    pub fn graphics_steps(&self) -> Vec<u32> {
        let limits = self.limits();
        let steps = (limits.graphics_max_mhz - 210) / STEP_MHZ;
        (0..=steps).map(|step| limits.graphics_max_mhz - step * STEP_MHZ).collect()
    }

    /// Sets a power limit.
    ///
    /// # Errors
    /// [`Code::INVALID_ARGUMENT`] outside of the limits.
    pub fn set_power_limit(&mut self, milliwatts: u32) -> Result<(), Code> {
        let limits = self.limits();
        if !(limits.power_min_mw..=limits.power_default_mw).contains(&milliwatts) {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.settings.power_limit_mw = Some(milliwatts);
        Ok(())
    }

    /// Holds the graphics clock between two frequencies.
    ///
    /// # Errors
    /// [`Code::INVALID_ARGUMENT`] for an empty range or one above the greatest clock.
    pub fn lock_graphics(&mut self, least: u32, most: u32) -> Result<(), Code> {
        if least > most || least > self.limits().graphics_max_mhz {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.settings.graphics_lock = Some((least, most.min(self.limits().graphics_max_mhz)));
        Ok(())
    }

    /// Holds the memory clock between two frequencies.
    ///
    /// # Errors
    /// [`Code::INVALID_ARGUMENT`] for an empty range or one above the memory clock.
    pub fn lock_memory(&mut self, least: u32, most: u32) -> Result<(), Code> {
        if least > most || least > self.limits().memory_mhz {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.settings.memory_lock = Some((least, most));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::{model, models};

    #[test]
    fn a_locked_clock_is_within_its_lock_and_a_wrong_lock_is_refused() {
        let mut gpu = Gpu::new(model("h100-80").unwrap(), 0);
        assert_eq!(gpu.graphics_mhz(), 345);
        gpu.lock_graphics(1500, 1500).unwrap();
        assert_eq!(gpu.graphics_mhz(), 1500);
        assert_eq!(gpu.lock_graphics(1500, 1400), Err(Code::INVALID_ARGUMENT));
        assert_eq!(gpu.lock_graphics(5000, 6000), Err(Code::INVALID_ARGUMENT));
        assert_eq!(gpu.settings.graphics_lock, Some((1500, 1500)));
    }

    #[test]
    fn a_power_limit_stays_within_the_boards() {
        for model in models() {
            let mut gpu = Gpu::new(model, 0);
            let limits = gpu.limits();
            assert_eq!(gpu.set_power_limit(limits.power_min_mw - 1), Err(Code::INVALID_ARGUMENT));
            assert_eq!(
                gpu.set_power_limit(limits.power_default_mw + 1),
                Err(Code::INVALID_ARGUMENT)
            );
            gpu.set_power_limit(limits.power_min_mw).unwrap();
            assert_eq!(gpu.power_limit_mw(), limits.power_min_mw);
        }
    }
}
