"""The offline service LLM: a scripted teacher, judge and chat service behind the OpenAI protocol over real HTTP.

It knows nothing but the request and the training rows it is given. Answers and faults are a function of (seed, request,
attempt). Every number it touched is to be labelled *simulated*.
"""

from understudy.models.simulated.faults import Faults, ServiceLedger
from understudy.models.simulated.protocol import FINGERPRINT, MODEL_ID
from understudy.models.simulated.server import SimulatedService, run_forever

__all__ = ["FINGERPRINT", "MODEL_ID", "Faults", "ServiceLedger", "SimulatedService", "run_forever"]
