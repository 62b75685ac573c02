"""What generated container names are made of."""

from __future__ import annotations

_ADJECTIVES = """
able agile airy alert amber ample apt astute atomic azure balmy bold brave breezy bright brisk calm candid
careful cheerful civil clear clever cobalt cosmic crisp curious dapper daring deft dreamy eager earnest easy
elated fair fancy fearless fleet fond frank free fresh gallant gentle gifted glad golden graceful grand handy
happy hardy honest humble ideal jolly jovial keen kind lively loyal lucid lucky mellow merry mild modest neat
nimble noble open patient placid plucky polite proud quick quiet rapid ready robust serene sharp silent sleek
smart snug solar solid spry steady stellar sunny swift tidy tranquil trusty upbeat vivid warm wise witty zesty
"""

_SURNAMES = """
abel ampere archimedes avogadro babbage banach bell bernoulli bohr boole boyle brahe cantor cauchy chandra
church clarke copernicus coulomb curie dalton darwin davy descartes dirac edison einstein erdos euclid euler
faraday fermat fermi feynman fibonacci fourier franklin galileo galois gauss germain goodall goedel hamilton
hawking heisenberg herschel hertz hilbert hooke hopper hubble huygens hypatia jacobi joule kelvin kepler knuth
kovalevskaya lagrange lamarr laplace lavoisier leibniz liskov lorentz lovelace maxwell meitner mendel
mendeleev napier nash newton nightingale noether ohm pascal pasteur pauli pavlov planck poincare ptolemy raman
ramanujan riemann ritchie rutherford sagan shannon tesla thales torvalds turing volta watt wiles yonath
"""

ADJECTIVES = tuple(_ADJECTIVES.split())
SURNAMES = tuple(_SURNAMES.split())
