"""The examination behind `anyblock doctor`; it works with torch, transformers or any plugin missing or broken."""

from anyblock.doctor.finding import Diagnosis, Examined, Finding
from anyblock.doctor.machine import examine_compute, examine_hub, examine_machine
from anyblock.doctor.packages import examine_packages
from anyblock.doctor.plugins import examine_plugins

__all__ = ["Diagnosis", "Examined", "Finding", "diagnose"]


def diagnose() -> Diagnosis:
    """Examine the environment; takes as long as importing torch and transformers once."""
    return Diagnosis(
        {
            "packages": examine_packages(),
            "compute": examine_compute(),
            "machine": examine_machine(),
            "hub": examine_hub(),
            "plugins": examine_plugins(),
        }
    )
