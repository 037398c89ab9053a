//! Random decisions that repeat: the same seed, case and variation decide the same at the same point.

/// Decides at which points a variation acts, and how.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    point: u32,
    /// The only points at which anything is done; `None`: wherever the dice say so.
    only: Option<Vec<u32>>,
    acted: Vec<u32>,
}

/// The points at which a variation acts as often as it likes. Beyond them it acts more and more seldom, or a guest with
/// tens of thousands of exits would take hours under a variation that builds a VM at each.
const OFTEN: u32 = 1024;
/// Most points that are remembered. The dice go on to decide beyond them.
pub const REMEMBERED: usize = 4096;

impl Dice {
    /// Dice for one test, by its name.
    pub fn new(seed: u64, test: &str, only: Option<Vec<u32>>) -> Self {
        // FNV-1a: stable over versions and machines, which a hash map's hasher does not promise.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let seed = test.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, hash);
        Self { seed, point: 0, only, acted: Vec::new() }
    }

    /// The next point: a vCPU is about to be let into KVM_RUN.
    pub fn next_point(&mut self) {
        self.point += 1;
    }

    /// Whether the variation acts at this point, which happens with this chance; if so, what chooses how.
    pub fn acts(&mut self, variation: usize, chance: f64) -> Option<fastrand::Rng> {
        if self.only.as_ref().is_some_and(|only| !only.contains(&self.point)) {
            return None;
        }
        // A generator for each point, so that leaving one out does not change what happens at the others.
        let mixed = self.seed ^ u64::from(self.point) << 8 ^ variation as u64;
        let mut rng = fastrand::Rng::with_seed(mixed);
        let often = f64::from(OFTEN) / f64::from(self.point.max(OFTEN));
        if rng.f64() >= chance * often {
            return None;
        }
        Some(rng)
    }

    /// Something was done at this point.
    pub fn note(&mut self) {
        if self.acted.last() != Some(&self.point) && self.acted.len() < REMEMBERED {
            self.acted.push(self.point);
        }
    }

    /// The points at which anything was done; of more than [`REMEMBERED`] the first.
    pub fn acted(self) -> Vec<u32> {
        self.acted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the dice choose at ten points, `None` where nothing is done.
    fn choices(seed: u64, test: &str, only: Option<&[u32]>) -> (Vec<Option<u32>>, Vec<u32>) {
        let mut dice = Dice::new(seed, test, only.map(<[u32]>::to_vec));
        let choose = |dice: &mut Dice| {
            dice.next_point();
            let chosen = dice.acts(0, 0.5).map(|mut rng| rng.u32(..));
            if chosen.is_some() {
                dice.note();
            }
            chosen
        };
        let chosen = (0..10).map(|_| choose(&mut dice)).collect();
        (chosen, dice.acted())
    }

    #[test]
    fn the_same_seed_and_test_decide_the_same() {
        assert_eq!(choices(1, "a.b~kick", None), choices(1, "a.b~kick", None));
        assert_ne!(choices(1, "a.b~kick", None), choices(2, "a.b~kick", None));
        assert_ne!(choices(1, "a.b~kick", None), choices(1, "a.c~kick", None));
    }

    #[test]
    fn many_points_are_decided_more_and_more_seldom() {
        let most = 1 << 20;
        let decide = |only: Option<Vec<u32>>| {
            let mut dice = Dice::new(1, "a.b~kick", only);
            let mut chosen = Vec::new();
            for point in 1..=most {
                dice.next_point();
                if let Some(mut rng) = dice.acts(0, 0.5) {
                    dice.note();
                    chosen.push((point, rng.u64(..)));
                }
            }
            (chosen, dice.acted())
        };
        let (chosen, acted) = decide(None);
        let kept = acted.len().min(REMEMBERED);
        assert!(acted.iter().eq(chosen[..kept].iter().map(|(point, _)| point)));
        // About every other point, then half as many for each doubling, to the end.
        let between = |from: u32, to: u32| {
            let number = chosen.iter().filter(|(point, _)| (from..to).contains(point)).count();
            f64::from(u32::try_from(number).unwrap())
        };
        let halving = f64::from(OFTEN) / 2.0 * std::f64::consts::LN_2;
        for (from, to, expected) in
            [(0, OFTEN, 512.0), (OFTEN, 2 * OFTEN, halving), (most / 2, most, halving)]
        {
            let number = between(from, to);
            assert!((number - expected).abs() < 100.0, "{from}..{to}: {number} instead of {expected}");
        }
        // No choice comes again.
        let different: std::collections::BTreeSet<u64> = chosen.iter().map(|(_, choice)| *choice).collect();
        assert_eq!(different.len(), chosen.len());
        // A point beyond those that are remembered can be asked for.
        let last = *chosen.last().unwrap();
        assert_eq!(decide(Some(vec![last.0])), (vec![last], vec![last.0]));
    }

    #[test]
    fn leaving_points_out_does_not_change_the_others() {
        let (all, acted) = choices(1, "a.b~kick", None);
        assert!(acted.len() > 2 && acted.len() < 10, "{acted:?}");
        let kept = [acted[0], acted[2]];
        let (some, acted) = choices(1, "a.b~kick", Some(&kept));
        assert_eq!(acted, kept);
        for (point, (all, some)) in (1..).zip(all.iter().zip(&some)) {
            assert_eq!(*some, if kept.contains(&point) { *all } else { None }, "{point}");
        }
    }
}
