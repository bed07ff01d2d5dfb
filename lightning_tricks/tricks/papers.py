"""The papers that the docstrings of tricks cite, and the papers of one trick."""

import inspect
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_tricks.space.trick import Trick

_CITATION = re.compile(r"[A-ZÀ-Ž][\w-]+(?: and [A-ZÀ-Ž][\w-]+| et al\.)?, (?:19|20)\d\d\b")


@dataclass(frozen=True)
class Paper:
    """A work that a docstring cites as `Kingma and Ba, 2015`."""

    key: str
    """The citation, as in docstrings."""
    entry: Literal["article", "inproceedings", "misc"]
    """The BibTeX entry type."""
    authors: str
    """The authors, joined by `and` as in BibTeX."""
    title: str
    venue: str
    url: str

    @property
    def year(self) -> int:
        """The year, from the end of the key."""
        return int(self.key[-4:])

    def text(self) -> str:
        """Return the reference in one line."""
        *others, last = self.authors.split(" and ")
        names = f"{', '.join(others)} and {last}" if others else last
        title = self.title if self.title.endswith("?") else f"{self.title}."
        return f"{names} ({self.year}). {title} {self.venue}. {self.url}"

    def bibtex(self) -> str:
        """Return the BibTeX entry."""
        where = {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}[self.entry]
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            where: self.venue,
            "year": str(self.year),
            "url": self.url,
        }
        plain = unicodedata.normalize("NFKD", self.key).encode("ascii", "ignore").decode()
        name = "_".join(
            word for word in re.findall(r"\w+", plain.lower()) if word not in ("et", "al", "and")
        )
        lines = [f"  {field} = {{{value}}}," for field, value in fields.items()]
        return "\n".join([f"@{self.entry}{{{name},", *lines, "}"])


def papers_of(trick: type[Trick]) -> list[Paper]:
    """Return the papers that the docstring of a trick cites, in the order of the text.

    Raises:
        KeyError: if one of them is not among `PAPERS`.
    """
    text = " ".join(inspect.cleandoc(trick.__doc__ or "").split())
    return [PAPERS[key] for key in dict.fromkeys(_CITATION.findall(text))]


def references(recipe: Trick, *, bibtex: bool = False) -> str:
    """Return the references of a recipe's active tricks, each once, as text.

    Args:
        recipe: the recipe, such as a champion's.
        bibtex: whether to return BibTeX entries instead of one line each.
    """
    chosen = [getattr(recipe, name) for name in type(recipe).model_fields]
    used = [trick for trick in chosen if isinstance(trick, Trick) and not trick.neutral]
    papers = {paper.key: paper for trick in used for paper in papers_of(type(trick))}
    if bibtex:
        return "\n\n".join(paper.bibtex() for paper in papers.values())
    return "\n".join(sorted(paper.text() for paper in papers.values()))


_ALL = [
    Paper(
        "Ba et al., 2016",
        "misc",
        "Jimmy Lei Ba and Jamie Ryan Kiros and Geoffrey E. Hinton",
        "Layer Normalization",
        "arXiv:1607.06450",
        "https://arxiv.org/abs/1607.06450",
    ),
    Paper(
        "Brock et al., 2021",
        "inproceedings",
        "Andrew Brock and Soham De and Samuel L. Smith and Karen Simonyan",
        "High-Performance Large-Scale Image Recognition Without Normalization",
        "International Conference on Machine Learning (ICML)",
        "https://arxiv.org/abs/2102.06171",
    ),
    Paper(
        "Chen et al., 2023",
        "inproceedings",
        "Xiangning Chen and Chen Liang and Da Huang and Esteban Real and Kaiyuan Wang and "
        "Hieu Pham and Xuanyi Dong and Thang Luong and Cho-Jui Hsieh and Yifeng Lu and Quoc "
        "V. Le",
        "Symbolic Discovery of Optimization Algorithms",
        "Advances in Neural Information Processing Systems (NeurIPS)",
        "https://arxiv.org/abs/2302.06675",
    ),
    Paper(
        "Cubuk et al., 2020",
        "inproceedings",
        "Ekin D. Cubuk and Barret Zoph and Jonathon Shlens and Quoc V. Le",
        "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space",
        "Conference on Computer Vision and Pattern Recognition (CVPR), workshops",
        "https://arxiv.org/abs/1909.13719",
    ),
    Paper(
        "Defazio et al., 2024",
        "inproceedings",
        "Aaron Defazio and Xingyu Alice Yang and Harsh Mehta and Konstantin Mishchenko and "
        "Ahmed Khaled and Ashok Cutkosky",
        "The Road Less Scheduled",
        "Advances in Neural Information Processing Systems (NeurIPS)",
        "https://arxiv.org/abs/2405.15682",
    ),
    Paper(
        "Duchi et al., 2011",
        "article",
        "John Duchi and Elad Hazan and Yoram Singer",
        "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
        "Journal of Machine Learning Research 12",
        "https://jmlr.org/papers/v12/duchi11a.html",
    ),
    Paper(
        "Foret et al., 2021",
        "inproceedings",
        "Pierre Foret and Ariel Kleiner and Hossein Mobahi and Behnam Neyshabur",
        "Sharpness-Aware Minimization for Efficiently Improving Generalization",
        "International Conference on Learning Representations (ICLR)",
        "https://arxiv.org/abs/2010.01412",
    ),
    Paper(
        "Glorot and Bengio, 2010",
        "inproceedings",
        "Xavier Glorot and Yoshua Bengio",
        "Understanding the difficulty of training deep feedforward neural networks",
        "International Conference on Artificial Intelligence and Statistics (AISTATS)",
        "https://proceedings.mlr.press/v9/glorot10a.html",
    ),
    Paper(
        "Goyal et al., 2017",
        "misc",
        "Priya Goyal and Piotr Dollár and Ross Girshick and Pieter Noordhuis and Lukasz "
        "Wesolowski and Aapo Kyrola and Andrew Tulloch and Yangqing Jia and Kaiming He",
        "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        "arXiv:1706.02677",
        "https://arxiv.org/abs/1706.02677",
    ),
    Paper(
        "Hazan et al., 2015",
        "inproceedings",
        "Elad Hazan and Kfir Y. Levy and Shai Shalev-Shwartz",
        "Beyond Convexity: Stochastic Quasi-Convex Optimization",
        "Advances in Neural Information Processing Systems (NIPS)",
        "https://arxiv.org/abs/1507.02030",
    ),
    Paper(
        "He et al., 2015",
        "inproceedings",
        "Kaiming He and Xiangyu Zhang and Shaoqing Ren and Jian Sun",
        "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
        "International Conference on Computer Vision (ICCV)",
        "https://arxiv.org/abs/1502.01852",
    ),
    Paper(
        "He et al., 2016",
        "inproceedings",
        "Kaiming He and Xiangyu Zhang and Shaoqing Ren and Jian Sun",
        "Deep Residual Learning for Image Recognition",
        "Conference on Computer Vision and Pattern Recognition (CVPR)",
        "https://arxiv.org/abs/1512.03385",
    ),
    Paper(
        "Hinton, 2012",
        "misc",
        "Geoffrey Hinton and Nitish Srivastava and Kevin Swersky",
        "Neural Networks for Machine Learning, Lecture 6: Overview of mini-batch gradient descent",
        "Lecture slides",
        "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
    ),
    Paper(
        "Howard and Ruder, 2018",
        "inproceedings",
        "Jeremy Howard and Sebastian Ruder",
        "Universal Language Model Fine-tuning for Text Classification",
        "Annual Meeting of the Association for Computational Linguistics (ACL)",
        "https://arxiv.org/abs/1801.06146",
    ),
    Paper(
        "Huang et al., 2016",
        "inproceedings",
        "Gao Huang and Yu Sun and Zhuang Liu and Daniel Sedra and Kilian Q. Weinberger",
        "Deep Networks with Stochastic Depth",
        "European Conference on Computer Vision (ECCV)",
        "https://arxiv.org/abs/1603.09382",
    ),
    Paper(
        "Ioffe and Szegedy, 2015",
        "inproceedings",
        "Sergey Ioffe and Christian Szegedy",
        "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
        "International Conference on Machine Learning (ICML)",
        "https://arxiv.org/abs/1502.03167",
    ),
    Paper(
        "Goyal et al., 2017",
        "misc",
        "Priya Goyal and Piotr Dollár and Ross Girshick and Pieter Noordhuis and Lukasz Wesolowski and "
        "Aapo Kyrola and Andrew Tulloch and Yangqing Jia and Kaiming He",
        "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        "arXiv 1706.02677",
        "https://arxiv.org/abs/1706.02677",
    ),
    Paper(
        "Izmailov et al., 2018",
        "inproceedings",
        "Pavel Izmailov and Dmitrii Podoprikhin and Timur Garipov and Dmitry Vetrov and "
        "Andrew Gordon Wilson",
        "Averaging Weights Leads to Wider Optima and Better Generalization",
        "Conference on Uncertainty in Artificial Intelligence (UAI)",
        "https://arxiv.org/abs/1803.05407",
    ),
    Paper(
        "Jordan et al., 2024",
        "misc",
        "Keller Jordan and Yuchen Jin and Vlado Boza and Jiacheng You and Franz Cesista and "
        "Laker Newhouse and Jeremy Bernstein",
        "Muon: An optimizer for hidden layers in neural networks",
        "Web page",
        "https://kellerjordan.github.io/posts/muon/",
    ),
    Paper(
        "Kingma and Ba, 2015",
        "inproceedings",
        "Diederik P. Kingma and Jimmy Ba",
        "Adam: A Method for Stochastic Optimization",
        "International Conference on Learning Representations (ICLR)",
        "https://arxiv.org/abs/1412.6980",
    ),
    Paper(
        "Krogh and Hertz, 1992",
        "inproceedings",
        "Anders Krogh and John A. Hertz",
        "A Simple Weight Decay Can Improve Generalization",
        "Advances in Neural Information Processing Systems (NIPS) 4",
        "https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html",
    ),
    Paper(
        "LeCun et al., 1998",
        "inproceedings",
        "Yann LeCun and Léon Bottou and Genevieve B. Orr and Klaus-Robert Müller",
        "Efficient BackProp",
        "Neural Networks: Tricks of the Trade",
        "https://doi.org/10.1007/3-540-49430-8_2",
    ),
    Paper(
        "Li et al., 2019",
        "inproceedings",
        "Xiang Li and Shuo Chen and Xiaolin Hu and Jian Yang",
        "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift",
        "Conference on Computer Vision and Pattern Recognition (CVPR)",
        "https://arxiv.org/abs/1801.05134",
    ),
    Paper(
        "Krizhevsky, 2014",
        "misc",
        "Alex Krizhevsky",
        "One weird trick for parallelizing convolutional neural networks",
        "arXiv 1404.5997",
        "https://arxiv.org/abs/1404.5997",
    ),
    Paper(
        "Loshchilov and Hutter, 2017",
        "inproceedings",
        "Ilya Loshchilov and Frank Hutter",
        "SGDR: Stochastic Gradient Descent with Warm Restarts",
        "International Conference on Learning Representations (ICLR)",
        "https://arxiv.org/abs/1608.03983",
    ),
    Paper(
        "Loshchilov and Hutter, 2019",
        "inproceedings",
        "Ilya Loshchilov and Frank Hutter",
        "Decoupled Weight Decay Regularization",
        "International Conference on Learning Representations (ICLR)",
        "https://arxiv.org/abs/1711.05101",
    ),
    Paper(
        "Müller and Hutter, 2021",
        "inproceedings",
        "Samuel G. Müller and Frank Hutter",
        "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
        "International Conference on Computer Vision (ICCV)",
        "https://arxiv.org/abs/2103.10158",
    ),
    Paper(
        "Nesterov, 1983",
        "article",
        "Yurii E. Nesterov",
        "A method of solving a convex programming problem with convergence rate O(1/k²)",
        "Doklady Akademii Nauk SSSR 269(3)",
        "https://www.mathnet.ru/eng/dan46009",
    ),
    Paper(
        "Pascanu et al., 2013",
        "inproceedings",
        "Razvan Pascanu and Tomas Mikolov and Yoshua Bengio",
        "On the difficulty of training Recurrent Neural Networks",
        "International Conference on Machine Learning (ICML)",
        "https://arxiv.org/abs/1211.5063",
    ),
    Paper(
        "Polyak and Juditsky, 1992",
        "article",
        "Boris T. Polyak and Anatoli B. Juditsky",
        "Acceleration of Stochastic Approximation by Averaging",
        "SIAM Journal on Control and Optimization 30(4)",
        "https://doi.org/10.1137/0330046",
    ),
    Paper(
        "Polyak, 1964",
        "article",
        "Boris T. Polyak",
        "Some methods of speeding up the convergence of iteration methods",
        "USSR Computational Mathematics and Mathematical Physics 4(5)",
        "https://doi.org/10.1016/0041-5553(64)90137-5",
    ),
    Paper(
        "Prechelt, 1998",
        "inproceedings",
        "Lutz Prechelt",
        "Early Stopping – But When?",
        "Neural Networks: Tricks of the Trade",
        "https://doi.org/10.1007/3-540-49430-8_3",
    ),
    Paper(
        "Robbins and Monro, 1951",
        "article",
        "Herbert Robbins and Sutton Monro",
        "A Stochastic Approximation Method",
        "The Annals of Mathematical Statistics 22(3)",
        "https://doi.org/10.1214/aoms/1177729586",
    ),
    Paper(
        "Salimans and Kingma, 2016",
        "inproceedings",
        "Tim Salimans and Diederik P. Kingma",
        "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep "
        "Neural Networks",
        "Advances in Neural Information Processing Systems (NIPS)",
        "https://arxiv.org/abs/1602.07868",
    ),
    Paper(
        "Saxe et al., 2014",
        "inproceedings",
        "Andrew M. Saxe and James L. McClelland and Surya Ganguli",
        "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        "International Conference on Learning Representations (ICLR)",
        "https://arxiv.org/abs/1312.6120",
    ),
    Paper(
        "Smith, 2018",
        "misc",
        "Leslie N. Smith",
        "A disciplined approach to neural network hyper-parameters: Part 1 – learning rate, "
        "batch size, momentum, and weight decay",
        "arXiv:1803.09820",
        "https://arxiv.org/abs/1803.09820",
    ),
    Paper(
        "Srivastava et al., 2014",
        "article",
        "Nitish Srivastava and Geoffrey Hinton and Alex Krizhevsky and Ilya Sutskever and "
        "Ruslan Salakhutdinov",
        "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
        "Journal of Machine Learning Research 15",
        "https://jmlr.org/papers/v15/srivastava14a.html",
    ),
    Paper(
        "Sutskever et al., 2013",
        "inproceedings",
        "Ilya Sutskever and James Martens and George Dahl and Geoffrey Hinton",
        "On the importance of initialization and momentum in deep learning",
        "International Conference on Machine Learning (ICML)",
        "https://proceedings.mlr.press/v28/sutskever13.html",
    ),
    Paper(
        "Szegedy et al., 2016",
        "inproceedings",
        "Christian Szegedy and Vincent Vanhoucke and Sergey Ioffe and Jonathon Shlens and "
        "Zbigniew Wojna",
        "Rethinking the Inception Architecture for Computer Vision",
        "Conference on Computer Vision and Pattern Recognition (CVPR)",
        "https://arxiv.org/abs/1512.00567",
    ),
    Paper(
        "Tibshirani, 1996",
        "article",
        "Robert Tibshirani",
        "Regression Shrinkage and Selection via the Lasso",
        "Journal of the Royal Statistical Society, Series B 58(1)",
        "https://doi.org/10.1111/j.2517-6161.1996.tb02080.x",
    ),
    Paper(
        "Wu and He, 2018",
        "inproceedings",
        "Yuxin Wu and Kaiming He",
        "Group Normalization",
        "European Conference on Computer Vision (ECCV)",
        "https://arxiv.org/abs/1803.08494",
    ),
    Paper(
        "Yosinski et al., 2014",
        "inproceedings",
        "Jason Yosinski and Jeff Clune and Yoshua Bengio and Hod Lipson",
        "How transferable are features in deep neural networks?",
        "Advances in Neural Information Processing Systems (NIPS)",
        "https://arxiv.org/abs/1411.1792",
    ),
    Paper(
        "Yun et al., 2019",
        "inproceedings",
        "Sangdoo Yun and Dongyoon Han and Seong Joon Oh and Sanghyuk Chun and Junsuk Choe and"
        " Youngjoon Yoo",
        "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
        "International Conference on Computer Vision (ICCV)",
        "https://arxiv.org/abs/1905.04899",
    ),
    Paper(
        "Zhang et al., 2018",
        "inproceedings",
        "Hongyi Zhang and Moustapha Cisse and Yann N. Dauphin and David Lopez-Paz",
        "mixup: Beyond Empirical Risk Minimization",
        "International Conference on Learning Representations (ICLR)",
        "https://arxiv.org/abs/1710.09412",
    ),
    Paper(
        "Zhong et al., 2020",
        "inproceedings",
        "Zhun Zhong and Liang Zheng and Guoliang Kang and Shaozi Li and Yi Yang",
        "Random Erasing Data Augmentation",
        "AAAI Conference on Artificial Intelligence",
        "https://arxiv.org/abs/1708.04896",
    ),
]
PAPERS: Mapping[str, Paper] = {paper.key: paper for paper in _ALL}
"""All cited papers, by citation."""
